package hvsock

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/google/uuid"
	_ "github.com/hvlab/hvlab/internal/fixedseed" // the same draws in every run
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const someVM = "c2b3a5f0-8b1e-4f5c-9b77-0c6d2a1e4f10"

// hvsock.md 2.6 gives port 2761 as text and as wire bytes. Data1 in the wrong
// byte order is the classic bug.
func TestServiceIDFromPort(t *testing.T) {
	id := ServiceIDFromPort(2761)
	require.Equal(t, "00000ac9-facb-11e6-bd58-64006a7986d3", id.String())
	wire := vmbus.GUIDFromUUID(id)
	require.Equal(t, "c90a0000cbfae611bd5864006a7986d3", hex.EncodeToString(wire[:]))
	require.Equal(t, vsockTemplate, ServiceIDFromPort(0))

	rapid.Check(t, func(t *rapid.T) {
		port := rapid.Uint32().Draw(t, "port")
		got, ok := PortFromServiceID(ServiceIDFromPort(port))
		require.True(t, ok)
		require.Equal(t, port, got)
		other := ServiceIDFromPort(port)
		other[rapid.IntRange(portBytes, 15).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		_, ok = PortFromServiceID(other)
		require.False(t, ok, "bytes 4 to 15 must be the template's")
	})
}

func TestParseAddr(t *testing.T) {
	port := ServiceIDFromPort(5000)
	vm := uuid.MustParse(someVM)
	for _, test := range []struct {
		text string
		want Addr
	}{
		{someVM + ":" + port.String(), Addr{vm, port}},
		{"C2B3A5F0-8B1E-4F5C-9B77-0C6D2A1E4F10:5000", Addr{vm, port}}, // Windows prints upper case
		{someVM + ":" + someVM, Addr{vm, vm}},                         // between Windows ends any GUID is a service
		{"wildcard:5000", Addr{Wildcard, port}},
		{"any:5000", Addr{Wildcard, port}},
		{"00000000-0000-0000-0000-000000000000:5000", Addr{Wildcard, port}},
		{"broadcast:5000", Addr{Broadcast, port}},
		{"children:5000", Addr{Children, port}},
		{"loopback:5000", Addr{Loopback, port}},
		{"local:5000", Addr{Loopback, port}},
		{"parent:5000", Addr{Parent, port}},
		{"Parent:5000", Addr{Parent, port}},
		{"host:5000", Addr{Parent, port}},
		{"silohost:5000", Addr{SiloHost, port}},
		{"host(2):5000", Addr{Parent, port}},          // as mdlayher/vsock prints
		{"local(1):5000", Addr{Loopback, port}},       //
		{"vm(4294967295):5000", Addr{Wildcard, port}}, // CIDAny
		{"2:5000", Addr{Parent, port}},                // as socat writes it
		{"parent:0", Addr{Parent, vsockTemplate}},     // any port, to Listen
		{"parent:4294967295", Addr{Parent, ServiceIDFromPort(PortAny)}},
	} {
		got, err := ParseAddr(test.text)
		require.NoError(t, err, test.text)
		require.Equal(t, test.want, got, test.text)
		for _, text := range []string{got.String(), got.Short()} {
			again, err := ParseAddr(text)
			require.NoError(t, err, text)
			require.Equal(t, got, again)
		}
	}
}

// Each refusal says which part is wrong, and is the caller's fault.
func TestParseAddrRefuses(t *testing.T) {
	for text, reason := range map[string]string{
		"":                     "no colon",
		"5000":                 "no colon", // which VM?
		someVM:                 "no colon",
		":5000":                "no VM",
		"parent:":              "no service",
		"mars:5000":            `VM "mars"`,
		"parent:http":          `service "http"`,
		"parent:-1":            `service "-1"`,
		"parent:+1":            `service "+1"`,
		"parent:1_000":         `service "1_000"`,
		"parent:4294967296":    "up to 4294967295",
		"parent:5000:1":        `service "5000:1"`,
		"vm(3):5000":           "CID 3",
		"hypervisor(0):5000":   "CID 0", // reserved by vsock, no partition of Hyper-V
		"4294967296:5000":      "nor a CID",
		"host(2:5000":          "nor a CID",
		"moon(2):5000":         "nor a CID",
		"host(1):5000":         "host is CID 2", // one of the two is a mistake
		"local(2):5000":        "local is CID 1",
		"{" + someVM + "}:1":   "VM",       // the plain form only
		"urn:uuid:" + someVM:   `VM "urn"`, // or a colon would mean two things
		"parent:" + someVM[1:]: "service",  // 35 characters
		"parent:zzzzzzzz-facb-11e6-bd58-64006a7986d3": "service",
	} {
		_, err := ParseAddr(text)
		var parse *AddrError
		require.ErrorAs(t, err, &parse, text)
		require.Equal(t, text, parse.Text)
		require.Contains(t, err.Error(), reason, text)
		require.ErrorIs(t, err, vmbus.ErrState)
		require.NotErrorIs(t, err, vmbus.ErrProtocol)
	}
}

// JSON and flag.TextVar use the text methods.
func TestAddrText(t *testing.T) {
	want := Addr{Parent, ServiceIDFromPort(5000)}
	b, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, `"a42e7cda-d03f-480c-9cc2-a4de20abb878:00001388-facb-11e6-bd58-64006a7986d3"`, string(b))
	var got Addr
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, want, got)
	require.Error(t, json.Unmarshal([]byte(`"5000"`), &got))
	require.Equal(t, want, got, "a failed parse leaves the address alone")
	require.Equal(t, "hvsock", want.Network())

	vm := uuid.MustParse(someVM)
	for addr, short := range map[Addr]string{
		want: "parent:5000", {VMID: Wildcard, ServiceID: vsockTemplate}: "wildcard:0",
		{VMID: Children, ServiceID: vm}: "children:" + someVM, {VMID: vm, ServiceID: ServiceIDFromPort(PortAny)}: someVM + ":4294967295",
	} {
		require.Equal(t, short, addr.Short())
	}
}

// hvsock.md 2.7: HOST is the parent, ANY the wildcard; Hyper-V does not number
// its guests, so other CIDs have no VM id.
func TestVSock(t *testing.T) {
	port := ServiceIDFromPort(5000)
	for _, test := range []struct {
		addr  Addr
		vsock VSockAddr
		text  string
	}{
		{Addr{Parent, port}, VSockAddr{2, 5000}, "host(2):5000"},
		{Addr{Loopback, port}, VSockAddr{1, 5000}, "local(1):5000"},
		{Addr{Wildcard, port}, VSockAddr{0xFFFFFFFF, 5000}, "vm(4294967295):5000"},
	} {
		v, ok := test.addr.VSock()
		require.True(t, ok)
		require.Equal(t, test.vsock, v)
		require.Equal(t, test.text, v.String())
		require.Equal(t, "vsock", v.Network())
		a, ok := v.Addr()
		require.True(t, ok)
		require.Equal(t, test.addr, a)
		parsed, err := ParseAddr(v.String())
		require.NoError(t, err, "ParseAddr reads the other view too")
		require.Equal(t, test.addr, parsed)
	}
	for _, a := range []Addr{
		{Children, port}, {Broadcast, port}, {SiloHost, port}, {uuid.MustParse(someVM), port}, // no CID
		{Parent, uuid.MustParse(someVM)}, // no port
	} {
		_, ok := a.VSock()
		require.False(t, ok, "%v", a)
	}
	for cid, text := range map[uint32]string{0: "hypervisor(0):1", 3: "vm(3):1"} {
		v := VSockAddr{cid, 1}
		require.Equal(t, text, v.String())
		_, ok := v.Addr()
		require.False(t, ok)
	}
}

// hvsock.md 2.1: family, reserved, VM id at 4, service id at 20, both in wire
// order.
func TestSockaddrHV(t *testing.T) {
	a := Addr{Parent, ServiceIDFromPort(2761)}
	b := a.SockaddrHV()
	require.Equal(t, "2200"+"0000"+"da7c2ea43fd00c489cc2a4de20abb878"+"c90a0000cbfae611bd5864006a7986d3", hex.EncodeToString(b[:]))
	got, err := ParseSockaddrHV(b[:])
	require.NoError(t, err)
	require.Equal(t, a, got)

	b[2], b[3] = 0xFF, 0xFF
	got, err = ParseSockaddrHV(b[:])
	require.NoError(t, err, "the reserved field is nobody's business")
	require.Equal(t, a, got)
	binary.LittleEndian.PutUint16(b[:], FamilyHyperVOutOfTree)
	_, err = ParseSockaddrHV(b[:])
	require.NoError(t, err, "same layout in the Linux kernels that had AF_HYPERV")

	for _, bad := range [][]byte{nil, {34}, b[:35], append(b[:], 0), make([]byte, 36)} {
		_, err := ParseSockaddrHV(bad)
		var e *SockaddrError
		require.ErrorAs(t, err, &e)
		require.Equal(t, len(bad), e.Have)
		require.ErrorIs(t, err, vmbus.ErrState)
		require.NotEmpty(t, e.Error())
	}
}

// hvsock.md 2.2: the port comes first, and everything is in host byte order,
// which is little endian on all machines this is tested on.
func TestSockaddrVM(t *testing.T) {
	v := VSockAddr{CID: CIDHost, Port: 2761}
	b := v.SockaddrVM()
	require.Equal(t, "2800"+"0000"+"c90a0000"+"02000000"+"00000000", hex.EncodeToString(b[:]))
	got, err := ParseSockaddrVM(b[:])
	require.NoError(t, err)
	require.Equal(t, v, got)
	b[12] = 1 // VMADDR_FLAG_TO_HOST of newer kernels
	got, err = ParseSockaddrVM(b[:])
	require.NoError(t, err)
	require.Equal(t, v, got)
	for _, bad := range [][]byte{nil, b[:15], append(b[:], 0), make([]byte, 16)} {
		_, err := ParseSockaddrVM(bad)
		require.True(t, errors.Is(err, vmbus.ErrState))
	}
}

func ExampleParseAddr() {
	a, err := ParseAddr("host(2):2761")
	fmt.Println(a, err)
	v, _ := a.VSock()
	fmt.Println(v)
	_, err = ParseAddr("2761")
	fmt.Println(err)
	// Output:
	// a42e7cda-d03f-480c-9cc2-a4de20abb878:00000ac9-facb-11e6-bd58-64006a7986d3 <nil>
	// host(2):2761
	// hvsock: address "2761": no colon; want VM:SERVICE, as in parent:5000
}

// hvsock.md 2.3: length and family are one byte each, the port lies at 4, and
// there is no VM id. The length byte must be the size.
func TestSockaddrHVS(t *testing.T) {
	b := SockaddrHVS(2761)
	require.Equal(t, "14"+"2b"+"0000"+"c90a0000"+"000000000000000000000000", hex.EncodeToString(b[:]))
	port, err := ParseSockaddrHVS(b[:])
	require.NoError(t, err)
	require.Equal(t, uint32(2761), port)
	wrongLength, wrongFamily := b, b
	wrongLength[0], wrongFamily[1] = 16, 40
	for _, bad := range [][]byte{nil, b[:19], append(b[:], 0), wrongLength[:], wrongFamily[:]} {
		_, err := ParseSockaddrHVS(bad)
		var e *SockaddrError
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, vmbus.ErrState)
	}
}

// hvsock.md 2.2: bit 0 of byte 12 says that the host is meant.
func TestSockaddrVMFlags(t *testing.T) {
	b := VSockAddr{CID: 3, Port: 1}.SockaddrVM()
	require.Zero(t, SockaddrVMFlags(b[:]))
	b[12] = FlagToHost
	require.Equal(t, FlagToHost, SockaddrVMFlags(b[:]))
	require.Zero(t, SockaddrVMFlags(b[:12]), "not a sockaddr_vm")
}

// hvsock.md 9: three GUIDs and the flags, 52 bytes.
func TestAddressInfo(t *testing.T) {
	a := AddressInfo{SystemID: uuid.MustParse(someVM), VMID: Parent, SiloID: SiloHost, Flags: AddressPassthru}
	b := a.Encode()
	require.Equal(t, "f0a5b3c21e8b5c4f9b770c6d2a1e4f10"+"da7c2ea43fd00c489cc2a4de20abb878"+"5c0cbd3676722342"+"88ba7d03b654c568"+"01000000",
		hex.EncodeToString(b[:]))
	got, err := ParseAddressInfo(b[:])
	require.NoError(t, err)
	require.Equal(t, a, got)
	_, err = ParseAddressInfo(b[:51])
	require.ErrorIs(t, err, vmbus.ErrState)
}

// hvsock.md 1 and 10: there are streams only. Datagrams fail in socket(),
// sequenced packets in connect(); Linux says ENODEV to the former, since no
// transport offers them.
func TestSocketTypes(t *testing.T) {
	dial := func(context.Context, Addr) (*Conn, error) { t.Error("it was dialled"); return nil, nil }
	for _, test := range []struct {
		network string
		profile Profile
		call    string
		want    error
	}{
		{"udp", Profile{}, "socket", syscall.ESOCKTNOSUPPORT},
		{"unixgram", Profile{}, "socket", syscall.ESOCKTNOSUPPORT},
		{"dgram", Profile{DatagramErrno: syscall.ENODEV}, "socket", syscall.ENODEV},
		{"seqpacket", Profile{DatagramErrno: syscall.ENODEV}, "connect", syscall.ESOCKTNOSUPPORT},
		{"unixpacket", Profile{}, "connect", syscall.ESOCKTNOSUPPORT},
		{"carrier pigeon", Profile{}, "", net.UnknownNetworkError("carrier pigeon")},
	} {
		c, err := test.profile.dialText(t.Context(), dial, test.network, "parent:5000")
		require.Nil(t, c)
		require.ErrorIs(t, err, test.want, test.network)
		var op *net.OpError
		require.ErrorAs(t, err, &op)
		require.Equal(t, "dial", op.Op)
		if call := new(os.SyscallError); errors.As(err, &call) {
			require.Equal(t, test.call, call.Syscall)
		}
	}
	for _, network := range []string{"hvsock", "vsock", "stream", "tcp", "tcp4", "tcp6", "unix", ""} {
		require.Equal(t, Stream, socketTypes[network])
		_, err := DialText(t.Context(), func(context.Context, Addr) (*Conn, error) { return nil, syscall.EPIPE }, network, "parent:1")
		require.Equal(t, syscall.EPIPE, err, "%q is a stream and is dialled", network)
	}
}
