package endpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestScriptRestored runs every scenario on cores that are saved and restored
// before each step: the trace must be the same, and so must the bytes of a second
// save (I-SAVE-ID, P14, P15, P39, HC-03, HC-05).
func TestScriptRestored(t *testing.T) {
	runScripts(t, func(w *world) { restoreBoth(t, w) })
}

// restoreBoth replaces both cores by what comes back from their saved states.
func restoreBoth(t require.TestingT, w *world) {
	if b, err := w.host.Save(); err == nil {
		h, err := RestoreHost(w.host.opts, b)
		require.NoError(t, err)
		again, err := h.Save()
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, again), "save(restore(b)) = b")
		w.host = h
	} else {
		require.NotZero(t, w.host.actions.len(), "only actions that were not taken are in the way")
	}
	if b, err := w.guest.Save(); err == nil {
		g, err := RestoreGuest(w.guest.opts, b)
		require.NoError(t, err)
		again, err := g.Save()
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, again), "save(restore(b)) = b")
		w.guest = g
	} else {
		require.NotZero(t, w.guest.actions.len(), "only actions that were not taken are in the way")
	}
}

// busyWorld is a connection with a bit of everything in it.
func busyWorld(t require.TestingT) *world {
	w := &world{
		host: NewHost(HostOptions{RedirectSINT: 7}),
		guest: NewGuest(GuestOptions{
			Features: vmbus.AllFeatures, OwnEventFlags: true, ParentToChild: 4096, ChildToParent: 8192,
		}),
	}
	for i := range 6 {
		_, err := w.host.Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{byte(i + 1)}}, Monitor: &offers.Monitor{Latency: 10}})
		require.NoError(t, err)
	}
	require.NoError(t, w.guest.Connect())
	w.run()
	require.NoError(t, w.open(1, 20)) // two messages of pages
	require.NoError(t, w.openWith(2, 5, OpenParams{Reserved: &ReservedTarget{VP: 1, SINT: 3}}))
	w.run()
	w.manual = true
	require.NoError(t, w.open(3, 5))
	require.NoError(t, w.guest.ModifyChannel(1, 1))
	require.NoError(t, w.guest.RequestSocket(guid("port:1388"), guid("00000009")))
	w.run()
	require.NoError(t, w.host.Revoke(4))
	require.NoError(t, w.guest.Release(6))
	return w
}

// Every byte matters: whichever is changed, restoring is an error and no panic
// (I-SAVE-ID). With the digest made anew the contents are still checked: what
// comes back is an error, or a core that keeps its invariants and can be reset.
func TestTamperedState(t *testing.T) {
	w := busyWorld(t)
	for range 100 {
		w.step()
	}
	host, err := w.host.Save()
	require.NoError(t, err)
	guest, err := w.guest.Save()
	require.NoError(t, err)
	_, err = RestoreHost(w.host.opts, guest)
	require.ErrorIs(t, err, vmbus.ErrProtocol, "it is a guest's")
	for _, c := range []struct {
		saved   []byte
		restore func([]byte) error
	}{
		{host, func(b []byte) error {
			h, err := RestoreHost(w.host.opts, b)
			if err == nil {
				resetRestored(t, h)
			}
			return err
		}},
		{guest, func(b []byte) error {
			g, err := RestoreGuest(w.guest.opts, b)
			if err == nil {
				_ = g.Unload() // it may not be connected
				_ = g.Receive(vmbus.Append(nil, &vmbus.UnloadComplete{}))
			}
			return err
		}},
	} {
		require.NoError(t, c.restore(c.saved))
		for i := range c.saved {
			b := bytes.Clone(c.saved)
			b[i] ^= 0x41
			require.ErrorIs(t, c.restore(b), vmbus.ErrProtocol, "byte %d", i)
			if i%5 == 0 && i >= savedHead && i < len(b)-sha256.Size {
				if err := c.restore(resealed(b)); err != nil {
					require.ErrorIs(t, err, vmbus.ErrProtocol)
				}
			}
		}
		for _, n := range []int{0, 7, savedHead, len(c.saved) - 1} {
			require.ErrorIs(t, c.restore(c.saved[:n]), vmbus.ErrProtocol)
		}
		require.ErrorIs(t, c.restore(make([]byte, MaxSavedBytes+1)), vmbus.ErrProtocol)
	}
}

// resealed makes the digest of changed contents fit again.
func resealed(b []byte) []byte {
	b = b[:len(b)-sha256.Size]
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-savedHead))
	digest := sha256.Sum256(b)
	return append(b, digest[:]...)
}

// resetRestored holds a restored host to its invariants and resets it, whatever
// its devices were asked before.
func resetRestored(t require.TestingT, h *Host) {
	checkHost(t, h)
	w := &world{host: h, guest: NewGuest(GuestOptions{}), raw: true}
	h.Repeat()
	w.run()
	h.Reset()
	w.run()
	require.Equal(t, HostDisconnected, h.State(), "L-RESET")
}

// P17: a host does not restore what it would not have agreed to.
func TestRestoreRefusals(t *testing.T) {
	w := busyWorld(t)
	w.run()
	b, err := w.host.Save()
	require.NoError(t, err)
	for _, opts := range []HostOptions{
		{MaxVersion: vmbus.Iron, RedirectSINT: 7},
		{Features: vmbus.PauseResume},
		{}, // nothing to redirect to
	} {
		_, err := RestoreHost(opts, b)
		require.ErrorIs(t, err, vmbus.ErrProtocol, "%+v", opts)
	}
	g, err := w.guest.Save()
	require.NoError(t, err)
	for _, opts := range []GuestOptions{{}, {Versions: []vmbus.Version{vmbus.Iron}}} {
		_, err := RestoreGuest(opts, g)
		require.ErrorIs(t, err, vmbus.ErrProtocol)
	}
}

// P16, P31: a restored host asks its new devices once for each thing that is
// outstanding, and everything ends.
func TestRepeat(t *testing.T) {
	w := busyWorld(t)
	w.run()
	require.NotEmpty(t, w.asked)
	b, err := w.host.Save()
	require.NoError(t, err)
	h, err := RestoreHost(w.host.opts, b)
	require.NoError(t, err)
	outstanding := len(h.tokens)
	require.NotZero(t, outstanding)
	h.Repeat()
	repeated := 0
	for _, a := range h.actions.all() {
		if _, socket := a.(SocketRequested); !socket {
			repeated++
		}
	}
	require.Equal(t, outstanding, repeated, "asked exactly once more")
	w.host, w.asked, w.manual = h, nil, false
	w.run()
	require.Zero(t, len(h.tokens))
	require.NoError(t, w.guest.Unload())
	w.run()
	require.Equal(t, HostDisconnected, h.State())
	ids, _ := w.guest.Usage()
	require.Equal(t, 1, ids, "the reserved channel")
}

// TestRestoredWorld restores at random steps of a random honest run: nothing else
// may change (I-SAVE-ID).
func TestRestoredWorld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ops := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 30).Draw(t, "ops")
		ids := rapid.SliceOfN(rapid.IntRange(1, 6), len(ops), len(ops)).Draw(t, "ids")
		play := func(restoring func(*world)) string {
			w := busyWorld(t)
			w.restoring = restoring
			for i, op := range ops {
				id := vmbus.ChannelID(ids[i])
				switch op { // each may be illegal now
				case 0:
					_ = w.open(id, 2)
				case 1:
					_ = w.guest.Close(id)
				case 2:
					_ = w.host.Revoke(OfferID(id))
				case 3:
					_, _ = w.host.Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{byte(id)}}})
				case 4:
					if len(w.asked) > 0 {
						a := w.asked[0]
						w.asked = w.asked[1:]
						w.answer(a, w.verdict(a))
					}
				case 5:
					for range ids[i] {
						w.step()
					}
				}
			}
			w.run()
			return w.trace.String()
		}
		require.Equal(t, play(nil), play(func(w *world) { restoreBoth(t, w) }))
	})
}

// FuzzRestore gives both restores any contents behind a digest that fits.
func FuzzRestore(f *testing.F) {
	w := busyWorld(f)
	for range 100 {
		w.step()
	}
	for _, save := range []func() ([]byte, error){w.host.Save, w.guest.Save} {
		b, err := save()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < savedHead+sha256.Size {
			return
		}
		b = resealed(bytes.Clone(b))
		if h, err := RestoreHost(w.host.opts, b); err == nil {
			again, err := h.Save()
			require.NoError(t, err)
			require.True(t, bytes.Equal(b, again), "one encoding of a value")
			resetRestored(t, h)
		}
		if g, err := RestoreGuest(w.guest.opts, b); err == nil {
			again, err := g.Save()
			require.NoError(t, err)
			require.True(t, bytes.Equal(b, again), "one encoding of a value")
			_ = g.Unload() // it may not be connected
			_ = g.Receive(vmbus.Append(nil, &vmbus.UnloadComplete{}))
		}
	})
}
