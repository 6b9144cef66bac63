package sim

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// A reachWorld is a host with a container and two guests, of which one has a
// container.
type reachWorld struct {
	places map[string]sockets
	ids    map[string]uuid.UUID
}

type sockets interface {
	Listen(hvsock.Addr) (*hvsock.Listener, error)
	Dial(context.Context, hvsock.Addr) (*hvsock.Conn, error)
}

func newReachWorld(t *testing.T, g GuestOptions) *reachWorld {
	host, vm := newPair(t, HostOptions{}, g)
	other, err := host.NewGuest(g)
	require.NoError(t, err)
	hostbox, err := host.NewContainer(ContainerOptions{})
	require.NoError(t, err)
	vmbox, err := vm.NewContainer(ContainerOptions{})
	require.NoError(t, err)
	return &reachWorld{
		places: map[string]sockets{"host": host, "vm": vm, "other": other, "hostbox": hostbox, "vmbox": vmbox},
		ids: map[string]uuid.UUID{
			"wildcard": hvsock.Wildcard, "broadcast": hvsock.Broadcast, "children": hvsock.Children, "loopback": hvsock.Loopback,
			"parent": hvsock.Parent, "silohost": hvsock.SiloHost,
			"vm": vm.ID(), "other": other.ID(), "hostbox": hostbox.ID(), "vmbox": vmbox.ID(),
		},
	}
}

// idNames are the columns of the matrix: every VM id there is.
var idNames = []string{"wildcard", "broadcast", "children", "loopback", "parent", "silohost", "vm", "other", "hostbox", "vmbox"}

// reaches is the matrix of hvsock.md 4, by connector: where a connect to each VM
// id of idNames goes; - is nowhere, and unreachable.
var reaches = map[string]string{
	//         wildcard broadcast children loopback parent silohost vm other hostbox vmbox
	"host":    "-       -         -        host     -      -        vm other hostbox vmbox", // a physical host has no parent
	"vm":      "-       -         -        vm       host   -        -  -     -       vmbox", // another VM's id reaches nothing
	"other":   "-       -         -        other    host   -        -  -     -       -",     // somebody else's container neither
	"hostbox": "-       -         -        hostbox  host   host     -  -     -       -",
	"vmbox":   "-       -         -        vmbox    host   vm       -  -     -       -", // parent: the current header
}

// older is the same where Microsoft's older pages differ.
var older = map[string]string{
	"vmbox": "- - - vmbox vm vm - - - -",
}

// serve accepts on l for ever and tells each dialer name.
func serve(l *hvsock.Listener, name string) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			_ = c.Close()
		}
	}()
}

// reached dials and says who answered, or which errno.
func reached(from sockets, to hvsock.Addr) (string, error) {
	c, err := from.Dial(context.Background(), to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

// hvsock.md 4: every connector, every VM id, in both readings of Parent.
func TestReachability(t *testing.T) {
	for name, option := range map[string]hvsock.SiloParent{"current header": hvsock.ParentIsVMHost, "older pages": hvsock.ParentIsUtilityVM} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newReachWorld(t, GuestOptions{SiloParent: option})
				for name, s := range w.places {
					l, err := s.Listen(port(hvsock.Wildcard, 5000))
					require.NoError(t, err)
					serve(l, name)
				}
				for connector, row := range reaches {
					if older[connector] != "" && option == hvsock.ParentIsUtilityVM {
						row = older[connector]
					}
					cells := strings.Fields(row)
					require.Len(t, cells, len(idNames))
					for i, want := range cells {
						got, err := reached(w.places[connector], port(w.ids[idNames[i]], 5000))
						if want == "-" {
							require.Empty(t, got, "%s dials %s", connector, idNames[i])
							require.ErrorIs(t, err, syscall.ENETUNREACH, "%s dials %s", connector, idNames[i])
							continue
						}
						require.NoError(t, err, "%s dials %s", connector, idNames[i])
						require.Equal(t, want, got, "%s dials %s", connector, idNames[i])
					}
				}
			})
		})
	}
}

// accepts says, for each way of connecting, to which VM ids its listener may be
// bound, the one that wins first.
var accepts = []struct {
	from, dial, at string
	binds          string
}{
	{"host", "vm", "vm", "parent wildcard"},
	{"host", "loopback", "host", "loopback wildcard"},
	{"host", "hostbox", "hostbox", "silohost parent wildcard"},
	{"host", "vmbox", "vmbox", "parent wildcard"}, // for a hosted silo, the host of the VM
	{"vm", "parent", "host", "vm children wildcard"},
	{"vm", "loopback", "vm", "vm loopback wildcard"},
	{"vm", "vmbox", "vmbox", "silohost wildcard"},
	{"other", "parent", "host", "other children wildcard"},
	{"hostbox", "parent", "host", "hostbox children wildcard"},
	{"hostbox", "silohost", "host", "hostbox children wildcard"},
	{"hostbox", "loopback", "hostbox", "hostbox loopback wildcard"},
	{"vmbox", "silohost", "vm", "vmbox children wildcard"},
	{"vmbox", "parent", "host", "vmbox children wildcard"},
	{"vmbox", "loopback", "vmbox", "vmbox loopback wildcard"},
}

// binds are the VM ids a listener may have in each place; all others are
// EADDRNOTAVAIL. A host cannot know which ids will be guests.
var binds = map[string]string{
	"host":    "wildcard children loopback vm other hostbox vmbox",
	"vm":      "wildcard children loopback parent vm vmbox",
	"other":   "wildcard children loopback parent other",
	"hostbox": "wildcard loopback parent silohost hostbox",
	"vmbox":   "wildcard loopback parent silohost vmbox",
}

// hvsock.md 4, last column: every bind either takes a connection, or does not,
// or does not exist; and a specific bind wins over a wildcard.
func TestReachabilityOfBinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newReachWorld(t, GuestOptions{})
		next := uint32(6000)
		for _, way := range accepts {
			at, want := w.places[way.at], strings.Fields(way.binds)
			for _, bind := range idNames {
				next++
				what := strings.Join([]string{way.from, "dials", way.dial + ",", way.at, "is bound to", bind}, " ")
				l, err := at.Listen(port(w.ids[bind], next))
				if !slices.Contains(strings.Fields(binds[way.at]), bind) {
					require.ErrorIs(t, err, syscall.EADDRNOTAVAIL, what)
					continue
				}
				require.NoError(t, err, what)
				serve(l, bind)
				got, err := reached(w.places[way.from], port(w.ids[way.dial], next))
				if slices.Contains(want, bind) {
					require.NoError(t, err, what)
					require.Equal(t, bind, got, what)
				} else {
					require.True(t, errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ETIMEDOUT), "%s: %v", what, err)
				}
				require.NoError(t, l.Close())
			}
			next++
			requireSpecificWins(t, w, way.from, way.dial, at, want, next)
		}
	})
}

// requireSpecificWins listens on all of binds at once, in the order of which the
// connections must come.
func requireSpecificWins(t *testing.T, w *reachWorld, from, dial string, at sockets, binds []string, n uint32) {
	listeners := map[string]*hvsock.Listener{}
	for _, bind := range slices.Backward(binds) {
		l, err := at.Listen(port(w.ids[bind], n))
		require.NoError(t, err)
		serve(l, bind)
		listeners[bind] = l
	}
	for _, bind := range binds {
		got, err := reached(w.places[from], port(w.ids[dial], n))
		require.NoError(t, err)
		require.Equal(t, bind, got, "%s dials %s", from, dial)
		require.NoError(t, listeners[bind].Close())
	}
}

// With the older reading of Parent, the utility VM is it for listeners, too.
func TestReachabilityOlderParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newReachWorld(t, GuestOptions{SiloParent: hvsock.ParentIsUtilityVM})
		l, err := w.places["vmbox"].Listen(port(hvsock.Parent, 5000))
		require.NoError(t, err)
		serve(l, "vmbox")
		got, err := reached(w.places["vm"], port(w.ids["vmbox"], 5000))
		require.NoError(t, err)
		require.Equal(t, "vmbox", got)
		_, err = reached(w.places["host"], port(w.ids["vmbox"], 5000))
		require.ErrorIs(t, err, syscall.ETIMEDOUT, "the VM's host is not the parent")
	})
}

// What crosses VMBus for a container names it: both forms need 5.2.
func TestContainerNeedsSilos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newReachWorld(t, GuestOptions{Version: vmbus.Win10RS4})
		_, err := reached(w.places["vmbox"], port(hvsock.Parent, 5000))
		require.ErrorIs(t, err, syscall.ENETUNREACH, "the request cannot say who asks")
		_, err = reached(w.places["host"], port(w.ids["vmbox"], 5000))
		require.ErrorIs(t, err, syscall.EHOSTUNREACH, "the offer cannot say whom it is for")
		l, err := w.places["vm"].Listen(port(hvsock.Children, 5000))
		require.NoError(t, err)
		serve(l, "vm")
		got, err := reached(w.places["vmbox"], port(hvsock.SiloHost, 5000))
		require.NoError(t, err, "inside the guest no bus is needed")
		require.Equal(t, "vm", got)
	})
}

// Both ends of a container's connections know who it is.
func TestContainerAddresses(t *testing.T) {
	w := newReachWorld(t, GuestOptions{})
	for _, way := range accepts {
		l, err := w.places[way.at].Listen(port(hvsock.Wildcard, 7000))
		require.NoError(t, err)
		dialed, err := w.places[way.from].Dial(t.Context(), port(w.ids[way.dial], 7000))
		require.NoError(t, err)
		accepted, err := l.Accept()
		require.NoError(t, err)
		require.Equal(t, port(w.ids[way.dial], 7000), dialed.RemoteAddr())
		require.Equal(t, dialed.LocalAddr(), accepted.RemoteAddr(), "%+v", way)
		if id, ok := w.ids[way.from]; ok && way.dial != "loopback" && way.dial != way.at { // a hosting site is Parent or SiloHost
			require.Equal(t, id, accepted.RemoteAddr().(hvsock.Addr).VMID, "%+v", way)
		}
		require.NoError(t, dialed.Close())
		require.NoError(t, accepted.Close())
		require.NoError(t, l.Close())
	}
}

// Closing a container ends what its processes had open, and nothing else; ids
// are shared by everything that has one.
func TestContainerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, vm := newPair(t, HostOptions{}, GuestOptions{})
		for _, start := range []func(ContainerOptions) (*Container, error){host.NewContainer, vm.NewContainer} {
			c, err := start(ContainerOptions{})
			require.NoError(t, err)
			for _, again := range []func(ContainerOptions) (*Container, error){host.NewContainer, vm.NewContainer} {
				for _, taken := range []uuid.UUID{c.ID(), vm.ID()} {
					_, err = again(ContainerOptions{ID: taken})
					require.ErrorIs(t, err, syscall.EADDRINUSE)
				}
				_, err = again(ContainerOptions{ID: hvsock.Parent})
				require.ErrorIs(t, err, syscall.EINVAL)
			}
			_, err = host.NewGuest(GuestOptions{ID: c.ID()})
			require.ErrorIs(t, err, syscall.EADDRINUSE)

			l, err := host.Listen(port(hvsock.Wildcard, 5000))
			require.NoError(t, err)
			dialed, err := c.Dial(t.Context(), port(hvsock.Parent, 5000))
			require.NoError(t, err)
			accepted, err := l.Accept()
			require.NoError(t, err)
			own, err := c.Listen(port(hvsock.Wildcard, 5001))
			require.NoError(t, err)
			require.NoError(t, c.Close())
			require.ErrorIs(t, c.Close(), net.ErrClosed)
			_, err = accepted.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
			_, err = own.Accept()
			require.ErrorIs(t, err, net.ErrClosed)
			_, err = dialed.Write([]byte{1})
			require.ErrorIs(t, err, net.ErrClosed)
			_, err = c.Dial(t.Context(), port(hvsock.Parent, 5000))
			require.ErrorIs(t, err, net.ErrClosed)
			_, err = host.Dial(t.Context(), port(c.ID(), 5001))
			require.ErrorIs(t, err, syscall.EHOSTUNREACH)
			require.NoError(t, accepted.Close())
			require.NoError(t, l.Close())
			synctest.Wait()
			require.Zero(t, host.Usage())
			require.Zero(t, vm.Usage())
		}
	})
}
