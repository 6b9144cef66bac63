package hvsock

import (
	"encoding/hex"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/stretchr/testify/require"
)

// hvsock.md 9, by name and number, with the bytes getsockopt gives (on a little
// endian machine).
func TestOptionTable(t *testing.T) {
	for _, test := range []struct {
		name          string
		level, number int
		value         int64
		bytes         string
	}{
		{"HVSOCKET_CONNECT_TIMEOUT", 1, 0x01, 300_000, "e0930400"},
		{"HVSOCKET_CONTAINER_PASSTHRU", 1, 0x02, 1, "01000000"},
		{"HVSOCKET_CONNECTED_SUSPEND", 1, 0x04, 1, "01000000"},
		{"HVSOCKET_HIGH_VTL", 1, 0x08, 1, "01000000"},
		{"SO_VM_SOCKETS_BUFFER_SIZE", 40, 0, 262144, "0000040000000000"},
		{"SO_VM_SOCKETS_BUFFER_MIN_SIZE", 40, 1, 128, "8000000000000000"},
		{"SO_VM_SOCKETS_BUFFER_MAX_SIZE", 40, 2, 262144, "0000040000000000"},
		{"SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD", 40, 6, 2_500_000, "0200000000000000" + "20a1070000000000"},
		{"SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW", 40, 8, 2_500_000, "0200000000000000" + "20a1070000000000"},
		{"SO_SNDBUF", 0xFFFF, 0x1001, 24576, "00600000"},
		{"SO_RCVBUF", 0xFFFF, 0x1002, 24576, "00600000"},
	} {
		o, ok := OptionByName(test.name)
		require.True(t, ok, test.name)
		require.Equal(t, Option{test.level, test.number}, o)
		require.Equal(t, test.name, o.String())
		b := o.Encode(test.value)
		require.Equal(t, test.bytes, hex.EncodeToString(b), test.name)
		value, err := o.Decode(b)
		require.NoError(t, err)
		require.Equal(t, test.value, value)
		_, err = o.Decode(b[1:])
		require.Equal(t, syscall.EINVAL, err)

		var s optionSet
		require.NoError(t, s.set(o, test.value, AllOptions), test.name)
		value, err = s.get(o, AllOptions)
		require.NoError(t, err)
		require.Equal(t, test.value, value, test.name)
	}
	require.Len(t, Options(), 14, "these, and the three of VMCI")
	_, ok := OptionByName("SO_LINGER")
	require.False(t, ok)
	o, ok := OptionByName("SO_VM_SOCKETS_CONNECT_TIMEOUT")
	require.True(t, ok, "how programs write it")
	require.Equal(t, VSockConnectTimeout, o)
	unknown := Option{1, 3}
	require.Equal(t, "option 3 of level 1", unknown.String())
	require.Nil(t, unknown.Encode(1))
	_, err := unknown.Decode(nil)
	require.Equal(t, syscall.ENOPROTOOPT, err)
	_, err = VSockConnectTimeout.Decode(append(make([]byte, 8), 0x40, 0x42, 0x0f, 0, 0, 0, 0, 0)) // a million µs
	require.Equal(t, syscall.ERANGE, err)
}

// hvsock.md 8 and 9: ranges, and options that are other transports'.
func TestOptionRanges(t *testing.T) {
	for _, test := range []struct {
		o     Option
		value int64
		want  error
	}{
		{ConnectTimeout, 300_000, nil},
		{ConnectTimeout, 300_001, syscall.EINVAL}, // HVSOCKET_CONNECT_TIMEOUT_MAX
		{ConnectTimeout, -1, syscall.EINVAL},
		{VSockConnectTimeout, -1, syscall.ERANGE},
		{VSockConnectTimeoutNew, 1 << 62, syscall.ERANGE},
		{VSockBufferSize, -1, syscall.EINVAL},
		{ConnectedSuspend, 1 << 32, syscall.EINVAL}, // a ULONG
		{VSockPeerHostVMID, 1, syscall.ENOPROTOOPT},
		{VSockTrusted, 1, syscall.ENOPROTOOPT},
		{VSockNonblockTxRx, 1, syscall.ENOPROTOOPT},
		{Option{1, 3}, 1, syscall.ENOPROTOOPT},
	} {
		var s optionSet
		err := s.set(test.o, test.value, AllOptions)
		if test.want == nil {
			require.NoError(t, err)
		} else {
			require.Equal(t, test.want, err, "%v = %d", test.o, test.value)
		}
	}
}

// hvsock.md 9: the vsock sizes are kept in order, and 0 restores the 2 s.
func TestVSockOptions(t *testing.T) {
	var s optionSet
	at := func(o Option) int64 {
		v, err := s.get(o, VSockOptions)
		require.NoError(t, err)
		return v
	}
	require.Equal(t, []int64{262144, 128, 262144, 2_000_000}, []int64{at(VSockBufferSize), at(VSockBufferMinSize), at(VSockBufferMaxSize), at(VSockConnectTimeout)})
	require.NoError(t, s.set(VSockBufferSize, 1, VSockOptions))
	require.Equal(t, int64(128), at(VSockBufferSize), "not below the minimum")
	require.NoError(t, s.set(VSockBufferSize, 1<<20, VSockOptions))
	require.Equal(t, int64(262144), at(VSockBufferSize), "not above the maximum")
	require.NoError(t, s.set(VSockBufferMaxSize, 1000, VSockOptions))
	require.Equal(t, int64(1000), at(VSockBufferSize), "a maximum moves it down")
	require.NoError(t, s.set(VSockBufferMaxSize, 3000, VSockOptions))
	require.NoError(t, s.set(VSockBufferMinSize, 2000, VSockOptions))
	require.Equal(t, int64(2000), at(VSockBufferSize), "a minimum moves it up")
	require.NoError(t, s.set(VSockConnectTimeoutNew, 5_000_000, VSockOptions))
	require.Equal(t, int64(5_000_000), at(VSockConnectTimeout), "two names of one thing")
	require.Equal(t, 5*time.Second, s.timeout())
	require.NoError(t, s.set(VSockConnectTimeout, 0, VSockOptions))
	require.Equal(t, 2*time.Second, s.timeout())
}

// Each system knows its own options only.
func TestOptionFamilies(t *testing.T) {
	for family, known := range map[OptionFamily][]Option{
		AllOptions:    {ConnectTimeout, VSockBufferSize, SendBuffer},
		VSockOptions:  {VSockBufferSize, SendBuffer},
		HyperVOptions: {ConnectTimeout, SendBuffer},
		SocketOptions: {SendBuffer},
	} {
		n := 0
		for _, o := range []Option{ConnectTimeout, VSockBufferSize, SendBuffer} {
			var s optionSet
			if err := s.set(o, 1000, family); err == nil {
				n++
				require.Contains(t, known, o)
			} else {
				require.Equal(t, syscall.ENOPROTOOPT, err)
			}
		}
		require.Len(t, known, n)
	}
}

// A listener's connections start with its options, and then have their own.
func TestOptionsInherited(t *testing.T) {
	l := newListener(Addr{}, 1, live.SystemClock(), nil)
	require.NoError(t, l.SetOption(ConnectedSuspend, 1))
	require.True(t, l.reserve())
	p := newPair(t, pairOptions{})
	require.True(t, l.push(p.a))
	v, err := p.a.GetOption(ConnectedSuspend)
	require.NoError(t, err)
	require.Equal(t, int64(1), v)
	require.NoError(t, l.SetOption(ConnectedSuspend, 0))
	v, err = p.a.GetOption(ConnectedSuspend)
	require.NoError(t, err)
	require.Equal(t, int64(1), v)

	err = p.a.SetOption(VSockTrusted, 1)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "set", op.Op)
	require.ErrorIs(t, err, syscall.ENOPROTOOPT)
	_, err = l.GetOption(VSockTrusted)
	require.ErrorIs(t, err, syscall.ENOPROTOOPT)
	require.NoError(t, l.Close())
}

// ringbuffer.md 12: what a buffer size makes of a ring, on Linux and on FreeBSD.
func TestRingPagesFor(t *testing.T) {
	for bytes, pages := range map[int64][2]int{
		0:       {5, 5},   // no request
		1:       {7, 6},   // 24 KiB, and on Linux the control page
		24576:   {7, 6},   //
		28672:   {8, 7},   //
		32767:   {9, 7},   // rounded up, or down
		32768:   {8, 8},   // from here on the control page is one of them on Linux, too
		212992:  {52, 52}, // Linux' default, for listeners
		262144:  {64, 64},
		1 << 30: {64, 64},
	} {
		require.Equal(t, pages, [2]int{HintsOfAll.pages(bytes, 5), HintsWholeRing.pages(bytes, 5)}, "%d bytes", bytes)
	}
}
