package endpoint_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/script"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestScriptRestored runs every scenario on cores that are saved and restored
// before each step: the trace must be the same, and so must the bytes of a second
// save (I-SAVE-ID, P14, P15, P39, HC-03, HC-05).
func TestScriptRestored(t *testing.T) {
	runScripts(t, func(w *script.World) { restoreBoth(t, w) })
}

// restoreBoth replaces both cores by what comes back from their saved states.
func restoreBoth(t require.TestingT, w *script.World) {
	if b, err := w.Host.Save(); err == nil {
		h, err := endpoint.RestoreHost(w.Host.Options(), b)
		require.NoError(t, err)
		again, err := h.Save()
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, again), "save(restore(b)) = b")
		w.Host = h
	} else {
		require.NotZero(t, w.Host.ActionsWaiting(), "only actions that were not taken are in the way")
	}
	if b, err := w.Guest.Save(); err == nil {
		g, err := endpoint.RestoreGuest(w.Guest.Options(), b)
		require.NoError(t, err)
		again, err := g.Save()
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, again), "save(restore(b)) = b")
		w.Guest = g
	} else {
		require.NotZero(t, w.Guest.ActionsWaiting(), "only actions that were not taken are in the way")
	}
}

// busyWorld is a connection with a bit of everything in it.
func busyWorld(t require.TestingT) *script.World {
	w := &script.World{
		Host: endpoint.NewHost(endpoint.HostOptions{RedirectSINT: 7}),
		Guest: endpoint.NewGuest(endpoint.GuestOptions{
			Features: vmbus.AllFeatures, OwnEventFlags: true, ParentToChild: 4096, ChildToParent: 8192,
		}),
	}
	for i := range 6 {
		_, err := w.Host.Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{byte(i + 1)}}, Monitor: &offers.Monitor{Latency: 10}})
		require.NoError(t, err)
	}
	require.NoError(t, w.Guest.Connect())
	run(t, w)
	require.NoError(t, w.Open(1, 20)) // two messages of pages
	require.NoError(t, w.OpenWith(2, 5, endpoint.OpenParams{Reserved: &endpoint.ReservedTarget{VP: 1, SINT: 3}}))
	run(t, w)
	w.Manual = true
	require.NoError(t, w.Open(3, 5))
	require.NoError(t, w.Guest.ModifyChannel(1, 1))
	require.NoError(t, w.Guest.RequestSocket(port5000, vmbus.GUID{9}))
	run(t, w)
	require.NoError(t, w.Host.Revoke(4))
	require.NoError(t, w.Guest.Release(6))
	return w
}

// Every byte matters: whichever is changed, restoring is an error and no panic
// (I-SAVE-ID). With the digest made anew the contents are still checked: what
// comes back is an error, or a core that keeps its invariants and can be reset.
func TestTamperedState(t *testing.T) {
	w := busyWorld(t)
	for range 100 {
		w.Step()
	}
	host, err := w.Host.Save()
	require.NoError(t, err)
	guest, err := w.Guest.Save()
	require.NoError(t, err)
	_, err = endpoint.RestoreHost(w.Host.Options(), guest)
	require.ErrorIs(t, err, vmbus.ErrProtocol, "it is a guest's")
	for _, c := range []struct {
		saved   []byte
		restore func([]byte) error
	}{
		{host, func(b []byte) error {
			h, err := endpoint.RestoreHost(w.Host.Options(), b)
			if err == nil {
				resetRestored(t, h)
			}
			return err
		}},
		{guest, func(b []byte) error {
			g, err := endpoint.RestoreGuest(w.Guest.Options(), b)
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
			if i%5 == 0 && i >= endpoint.SavedHead && i < len(b)-sha256.Size {
				if err := c.restore(resealed(b)); err != nil {
					require.ErrorIs(t, err, vmbus.ErrProtocol)
				}
			}
		}
		for _, n := range []int{0, 7, endpoint.SavedHead, len(c.saved) - 1} {
			require.ErrorIs(t, c.restore(c.saved[:n]), vmbus.ErrProtocol)
		}
		require.ErrorIs(t, c.restore(make([]byte, endpoint.MaxSavedBytes+1)), vmbus.ErrProtocol)
	}
}

// resealed makes the digest of changed contents fit again.
func resealed(b []byte) []byte {
	b = b[:len(b)-sha256.Size]
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-endpoint.SavedHead))
	digest := sha256.Sum256(b)
	return append(b, digest[:]...)
}

// resetRestored holds a restored host to its invariants and resets it, whatever
// its devices were asked before.
func resetRestored(t require.TestingT, h *endpoint.Host) {
	checkHost(t, h)
	w := &script.World{Host: h, Guest: endpoint.NewGuest(endpoint.GuestOptions{}), Raw: true}
	h.Repeat()
	run(t, w)
	h.Reset()
	run(t, w)
	require.Equal(t, endpoint.HostDisconnected, h.State(), "L-RESET")
}

// P17: a host does not restore what it would not have agreed to.
func TestRestoreRefusals(t *testing.T) {
	w := busyWorld(t)
	run(t, w)
	b, err := w.Host.Save()
	require.NoError(t, err)
	for _, opts := range []endpoint.HostOptions{
		{MaxVersion: vmbus.Iron, RedirectSINT: 7},
		{Features: vmbus.PauseResume},
		{}, // nothing to redirect to
	} {
		_, err := endpoint.RestoreHost(opts, b)
		require.ErrorIs(t, err, vmbus.ErrProtocol, "%+v", opts)
	}
	g, err := w.Guest.Save()
	require.NoError(t, err)
	for _, opts := range []endpoint.GuestOptions{{}, {Versions: []vmbus.Version{vmbus.Iron}}} {
		_, err := endpoint.RestoreGuest(opts, g)
		require.ErrorIs(t, err, vmbus.ErrProtocol)
	}
}

// P16, P31: a restored host asks its new devices once for each thing that is
// outstanding, and everything ends.
func TestRepeat(t *testing.T) {
	w := busyWorld(t)
	run(t, w)
	require.NotEmpty(t, w.Asked())
	b, err := w.Host.Save()
	require.NoError(t, err)
	h, err := endpoint.RestoreHost(w.Host.Options(), b)
	require.NoError(t, err)
	outstanding := h.Operations()
	require.NotZero(t, outstanding)
	h.Repeat()
	repeated := 0
	for _, a := range h.Actions() {
		if _, socket := a.(endpoint.SocketRequested); !socket {
			repeated++
		}
	}
	require.Equal(t, outstanding, repeated, "asked exactly once more")
	w.Host, w.Manual = h, false
	run(t, w)
	require.Zero(t, h.Operations())
	require.NoError(t, w.Guest.Unload())
	run(t, w)
	require.Equal(t, endpoint.HostDisconnected, h.State())
	ids, _ := w.Guest.Usage()
	require.Equal(t, 1, ids, "the reserved channel")
}

// TestRestoredWorld restores at random steps of a random honest run: nothing else
// may change (I-SAVE-ID).
func TestRestoredWorld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ops := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 30).Draw(t, "ops")
		ids := rapid.SliceOfN(rapid.IntRange(1, 6), len(ops), len(ops)).Draw(t, "ids")
		play := func(restoring func(*script.World)) string {
			w := busyWorld(t)
			w.BeforeStep = restoring
			for i, op := range ops {
				id := vmbus.ChannelID(ids[i])
				switch op { // each may be illegal now
				case 0:
					_ = w.Open(id, 2)
				case 1:
					_ = w.Guest.Close(id)
				case 2:
					_ = w.Host.Revoke(endpoint.OfferID(id))
				case 3:
					_, _ = w.Host.Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{byte(id)}}})
				case 4:
					w.AnswerOldest()
				case 5:
					for range ids[i] {
						w.Step()
					}
				}
			}
			run(t, w)
			return w.Trace()
		}
		require.Equal(t, play(nil), play(func(w *script.World) { restoreBoth(t, w) }))
	})
}
