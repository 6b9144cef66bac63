package native

import (
	"encoding/binary"
	"syscall"
	"testing"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
)

func TestListenAnywhere(t *testing.T) {
	taken := 3
	var tried []uint32
	listen := func(addr hvsock.Addr) (rawListener, error) {
		port, ok := hvsock.PortFromServiceID(addr.ServiceID)
		require.True(t, ok, "a Linux peer can name it")
		tried = append(tried, port)
		if taken--; taken >= 0 {
			return nil, syscall.Errno(10048)
		}
		return &fakeListener{addr: addr}, nil
	}
	l, err := listenAnywhere(hvsock.Addr{VMID: hvsock.Children}, listen)
	require.NoError(t, err)
	require.Len(t, tried, 4)
	require.Equal(t, service(hvsock.Children, tried[0]+3), l.Addr(), "successive ports")
	require.GreaterOrEqual(t, tried[0], uint32(minAutoPort))
	require.Less(t, tried[0], uint32(maxAutoPort-autoPortTries))

	taken, tried = autoPortTries, nil
	_, err = listenAnywhere(service(hvsock.Children, 0), listen)
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	require.Len(t, tried, autoPortTries)

	_, err = listenAnywhere(hvsock.Addr{}, func(hvsock.Addr) (rawListener, error) { return nil, syscall.Errno(10013) })
	require.ErrorIs(t, err, syscall.Errno(10013), "another error ends the search")

	taken, tried = 0, nil
	_, err = listenAnywhere(service(hvsock.Children, 77), listen)
	require.NoError(t, err)
	require.Equal(t, []uint32{77}, tried)
}

// uuid.UUID and guid.GUID both print what they hold, so nothing is swapped
// between them; the mixed-endian form is go-winio's own business.
func TestGUIDConversion(t *testing.T) {
	id := uuid.MustParse("00000ac9-facb-11e6-bd58-64006a7986d3")
	g := guid.FromArray(id)
	require.Equal(t, id.String(), g.String())
	require.Equal(t, uint32(2761), g.Data1)
	require.Equal(t, id, uuid.UUID(g.ToArray()))
	wire := g.ToWindowsArray()
	require.Equal(t, uint32(2761), binary.LittleEndian.Uint32(wire[:]))
}

func TestRegisterCommand(t *testing.T) {
	require.Equal(t, `New-Item -Path 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Virtualization\GuestCommunicationServices'`+
		` -Name '00001388-facb-11e6-bd58-64006a7986d3' | New-ItemProperty -Name ElementName -Value 'demo'`,
		RegisterCommand(hvsock.ServiceIDFromPort(5000), "demo"))
}
