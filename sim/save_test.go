package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/snapshot"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/stretchr/testify/require"
)

// TestSaveAndRestore is SS-10: every connection from before the save ends towards
// both applications; in the copy on another host there are the listeners, and
// nothing of the connections.
func TestSaveAndRestore(t *testing.T) {
	for _, paused := range []bool{false, true} {
		forVersions(t, func(t *testing.T, host *Host, guest *Guest) {
			k := talking(t, host, guest)
			if paused {
				keep(t, k.hostEnds[:]...)
				require.NoError(t, guest.Pause())
			}
			saved, err := guest.Save()
			require.NoError(t, err)
			if paused {
				require.NoError(t, guest.Resume())
			}
			for i := range 2 {
				ended(t, k.hostEnds[i], "x")
				ended(t, k.guestEnds[i], "x")
			}
			works(t, host, guest, k.atHost, k.inGuest) // the original goes on

			other, err := NewHost(HostOptions{})
			require.NoError(t, err)
			atHost, err := other.Listen(port(hvsock.Children, 5000))
			require.NoError(t, err)
			copied, err := other.RestoreGuest(saved, RestoreOptions{})
			require.NoError(t, err)
			require.Equal(t, guest.ID(), copied.ID())
			require.Equal(t, guest.Name(), copied.Name())
			require.Equal(t, guest.Version(), copied.Version())
			list := copied.Listeners()
			require.Len(t, list, 1)
			require.Equal(t, port(hvsock.Wildcard, 6000), list[0].Addr())
			works(t, other, copied, atHost, list[0])
			require.NoError(t, other.Close())
			require.Zero(t, copied.memory.InUsePages(), "every page is back")

			require.NoError(t, guest.Close())
			again, err := host.RestoreGuest(saved, RestoreOptions{}) // in its old place
			require.NoError(t, err)
			works(t, host, again, k.atHost, again.Listeners()[0])
		})
	}
}

// TestSaveAtAnyMoment saves a guest in the middle of many connections that begin,
// talk and end: whatever was on its way, the copy comes to rest with nothing left
// and works, and so does the original (SS-10, P14).
func TestSaveAtAnyMoment(t *testing.T) {
	for seed := range uint64(25) {
		synctest.Test(t, func(t *testing.T) {
			host, err := NewHost(HostOptions{Seed: seed + 1})
			require.NoError(t, err)
			guest, err := host.NewGuest(GuestOptions{Seed: seed + 1, ID: uuid.UUID{9}})
			require.NoError(t, err)
			atHost, err := host.Listen(port(hvsock.Children, 5000))
			require.NoError(t, err)
			inGuest, err := guest.Listen(port(hvsock.Wildcard, 6000))
			require.NoError(t, err)
			var all sync.WaitGroup
			all.Go(func() { serveEcho(atHost, &all) })
			all.Go(func() { serveEcho(inGuest, &all) })
			var calls sync.WaitGroup
			for i := range 12 {
				calls.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond)
					var c *hvsock.Conn
					var err error
					if i%2 == 0 {
						c, err = guest.Dial(context.Background(), port(hvsock.Parent, 5000))
					} else {
						c, err = host.Dial(context.Background(), port(guest.ID(), 6000))
					}
					if err != nil {
						return // it fell into the save
					}
					// Two rings are all there is room for: an echo between them has
					// no buffer of its own.
					all.Go(func() { _, _ = io.Copy(io.Discard, c) })
					for range i {
						if _, err := c.Write(make([]byte, 3000)); err != nil {
							break
						}
						time.Sleep(time.Millisecond)
					}
					_ = c.Close()
				})
			}
			time.Sleep(time.Duration(seed) * 500 * time.Microsecond)
			for range seed % 7 { // not only when everything has come to rest
				runtime.Gosched()
			}
			saved, err := guest.Save()
			require.NoError(t, err)
			calls.Wait()

			other, err := NewHost(HostOptions{})
			require.NoError(t, err)
			there, err := other.Listen(port(hvsock.Children, 5000))
			require.NoError(t, err)
			copied, err := other.RestoreGuest(saved, RestoreOptions{})
			require.NoError(t, err)
			time.Sleep(time.Minute) // whatever was left of dials is given up
			require.Equal(t, Usage{Listeners: 1}, copied.Usage())
			works(t, other, copied, there, copied.Listeners()[0])
			require.NoError(t, other.Close())
			require.Equal(t, Usage{Listeners: 1}, guest.Usage())
			require.NoError(t, host.Close())
			all.Wait()
			require.Zero(t, guest.memory.InUsePages(), "every page is back")
		})
	}
}

// savedBytes is the state of a guest with a listener and nothing else.
func savedBytes(t testing.TB) []byte {
	t.Helper()
	host, err := NewHost(HostOptions{})
	require.NoError(t, err)
	guest, err := host.NewGuest(GuestOptions{ID: uuid.UUID{1}, Name: "saved", Seed: 1})
	require.NoError(t, err)
	_, err = guest.Listen(port(hvsock.Wildcard, 6000))
	require.NoError(t, err)
	b, err := guest.Save()
	require.NoError(t, err)
	require.NoError(t, host.Close())
	return b
}

// TestTamperedGuest: every byte and every cut is noticed, and leaves nothing
// (I-SAVE-ID, S26).
func TestTamperedGuest(t *testing.T) {
	saved := savedBytes(t)
	host, err := NewHost(HostOptions{})
	require.NoError(t, err)
	refuse := func(b []byte, why string, at int) {
		t.Helper()
		_, err := host.RestoreGuest(b, RestoreOptions{})
		require.ErrorIs(t, err, vmbus.ErrProtocol, "%s %d", why, at)
		require.Zero(t, host.Usage())
	}
	for i := range saved {
		bad := bytes.Clone(saved)
		bad[i] ^= 0x20
		refuse(bad, "byte", i)
		refuse(saved[:i], "cut at", i)
	}
	refuse(make([]byte, MaxSavedBytes+1), "16 MiB and a byte", 0)
	for i := snapshot.HeadBytes; i < len(saved)-sha256.Size; i += 29 { // whoever can make a digest
		bad := bytes.Clone(saved)
		bad[i] ^= 0x20
		g, err := host.RestoreGuest(reseal(bad), RestoreOptions{})
		if err != nil {
			requireRefusal(t, err)
			continue
		}
		require.NoError(t, g.Crash(), "byte %d", i) // what it says to the host may be anything
	}
	require.NoError(t, host.Close())
}

// requireRefusal wants an error of a saved state, or of a listener's address in it.
func requireRefusal(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, vmbus.ErrProtocol) && !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatal(err)
	}
}

// reseal makes the digest of changed contents fit again.
func reseal(b []byte) []byte {
	b = bytes.Clone(b[:len(b)-sha256.Size])
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-snapshot.HeadBytes))
	digest := sha256.Sum256(b)
	return append(b, digest[:]...)
}

// TestRestoreElsewhere: a good state on a host that cannot take it.
func TestRestoreElsewhere(t *testing.T) {
	saved := savedBytes(t)
	old, err := NewHost(HostOptions{MaxVersion: vmbus.Iron})
	require.NoError(t, err)
	_, err = old.RestoreGuest(saved, RestoreOptions{})
	require.ErrorIs(t, err, vmbus.ErrProtocol, "version 6.0 (P17)")
	host, err := NewHost(HostOptions{})
	require.NoError(t, err)
	_, err = host.RestoreGuest(saved, RestoreOptions{GuestOptions: GuestOptions{MemoryPages: 2}})
	require.ErrorIs(t, err, guestmem.ErrNoMemory)
	_, err = host.RestoreGuest(saved, RestoreOptions{GuestOptions: GuestOptions{Version: vmbus.Iron}})
	require.ErrorIs(t, err, vmbus.ErrProtocol, "a guest that does not ask for 6.0")
	_, err = host.RestoreGuest(saved, RestoreOptions{})
	require.NoError(t, err)
	_, err = host.RestoreGuest(saved, RestoreOptions{})
	require.ErrorIs(t, err, syscall.EADDRINUSE, "its id is taken")
	second, err := host.RestoreGuest(saved, RestoreOptions{GuestOptions: GuestOptions{ID: uuid.UUID{2}, Name: "copy"}})
	require.NoError(t, err)
	require.Equal(t, "copy", second.Name())
	require.NoError(t, host.Close())
	_, err = host.RestoreGuest(saved, RestoreOptions{})
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, old.Close())
}

// TestSaveLimit: a guest with more than 16 MiB of memory in use cannot be saved.
func TestSaveLimit(t *testing.T) {
	_, guest := newPair(t, HostOptions{}, GuestOptions{})
	block, err := guest.memory.Alloc(MaxSavedBytes/guestmem.PageSize + 1)
	require.NoError(t, err)
	_, err = guest.Save()
	require.NoError(t, err, "pages of zeros take no room")
	for _, p := range block.Pages {
		p.Store32(0, 1)
	}
	_, err = guest.Save()
	require.ErrorIs(t, err, vmbus.ErrState)
	require.NoError(t, guest.memory.Free(block))
}

// FuzzRestoreGuest gives RestoreGuest any contents behind a digest that fits: it
// refuses them and leaves nothing, or what it returns can be ended.
func FuzzRestoreGuest(f *testing.F) {
	f.Add(savedBytes(f))
	host, err := NewHost(HostOptions{})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, host.Close()) })
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < snapshot.HeadBytes+sha256.Size {
			return
		}
		g, err := host.RestoreGuest(reseal(b), RestoreOptions{})
		if err == nil {
			require.NoError(t, g.Crash())
		}
		require.Zero(t, host.Usage())
	})
}
