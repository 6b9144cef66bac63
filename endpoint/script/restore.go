package script

import (
	"bytes"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
)

// restore saves the cores and puts what comes back from their bytes in their
// places. With "max" or "grant" the host's process is one with these options from
// then on. A core that cannot be restored stays what it was.
func (w *World) restore(a *args) error {
	side := a.word("side", "", "host", "guest")
	options := w.hostOptions
	if v := a.version("max"); v != 0 {
		options.MaxVersion = v
	}
	options.Features = vmbus.Features(num[uint32](a, "grant", uint32(options.Features)))
	flip, flips := num[uint32](a, "flip", 0), a.has("flip")
	newDevices := a.has("new-devices")
	if a.err != nil {
		return nil
	}
	damage := func(b []byte) []byte {
		if !flips {
			return b
		}
		if int64(flip) >= int64(len(b)) {
			a.wrong("flip", "there are %d bytes, counted from 0", len(b))
			return b
		}
		b = bytes.Clone(b)
		b[flip] ^= 0xFF
		return b
	}
	if side != "guest" && !w.Mute {
		saved, err := w.Host.Save()
		if err != nil {
			return err
		}
		h, err := endpoint.RestoreHost(options, damage(saved))
		if err != nil {
			return err
		}
		w.Host, w.hostOptions = h, options
		w.restored("host", saved, h.Save)
		if newDevices {
			w.asked = nil
			h.Repeat()
		}
	}
	if side != "host" && !w.Raw {
		saved, err := w.Guest.Save()
		if err != nil {
			return err
		}
		g, err := endpoint.RestoreGuest(w.guestOptions, damage(saved))
		if err != nil {
			return err
		}
		w.Guest = g
		w.restored("guest", saved, g.Save)
	}
	return nil
}

// restored says whether a restored core saves the bytes it came from (I-SAVE-ID).
func (w *World) restored(side string, saved []byte, save func() ([]byte, error)) {
	again, err := save()
	switch {
	case err != nil:
		w.log("%s: restored, and cannot be saved again: %v", side, err)
	case !bytes.Equal(saved, again):
		w.log("%s: restored, and saves other bytes", side)
	default:
		w.log("%s: saved, restored, and saved again: the same bytes", side)
	}
}
