package fuzz

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
)

// The frame of a saved core: 16 bytes of head with the length of the body at 12,
// the body, a digest. Source: endpoint/encode.go.
const (
	savedHeadBytes = 16
	savedLengthAt  = 12
)

// reseal makes the length and the digest of a saved core fit its contents, as
// somebody who wants it to be accepted would.
func reseal(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) < savedHeadBytes+sha256.Size {
		return b
	}
	body := len(b) - sha256.Size
	binary.LittleEndian.PutUint32(b[savedLengthAt:], uint32(body-savedHeadBytes))
	digest := sha256.Sum256(b[:body])
	copy(b[body:], digest[:])
	return b
}

// SavedState gives both restores the same bytes: a byte says whether length and
// digest are made to fit, the rest is the saved state.
func SavedState(data []byte) error {
	in := &input{data}
	b := in.left
	if in.u8()&1 == 0 {
		b = reseal(in.left)
	}
	return errors.Join(restoreHost(b), restoreGuest(b))
}

// restoreHost: what is accepted saves as the same bytes, and can be reset to
// nothing.
func restoreHost(b []byte) error {
	w := newHostBus(true)
	h, err := endpoint.RestoreHost(w.opts, b)
	if err != nil {
		return refusedState(err)
	}
	if again, err := h.Save(); err != nil || !bytes.Equal(b, again) {
		return violated("I-SAVE-ID", "a host is saved as other bytes: %v", err)
	}
	h.Repeat()
	w.core = h
	for range 10_000 {
		a, ok := h.Next()
		if !ok {
			break
		}
		answerDevice(h, a, vmbus.StatusSuccess)
	}
	h.Reset()
	for range 10_000 {
		a, ok := h.Next()
		if !ok {
			break
		}
		answerDevice(h, a, vmbus.StatusSuccess)
	}
	if s := h.State(); s != endpoint.HostDisconnected {
		return violated("L-RESET", "the restored host is %v after a reset", s)
	}
	if _, ids, gpadls, operations, requests := h.Usage(); ids+gpadls+operations+requests != 0 {
		return violated("I-NO-LEAK", "%d ids, %d GPADLs, %d operations, %d requests", ids, gpadls, operations, requests)
	}
	return nil
}

// restoreGuest: what is accepted saves as the same bytes, and can be unloaded.
func restoreGuest(b []byte) error {
	w := newGuestBus(0x80)
	g, err := endpoint.RestoreGuest(w.opts, b)
	if err != nil {
		return refusedState(err)
	}
	if again, err := g.Save(); err != nil || !bytes.Equal(b, again) {
		return violated("I-SAVE-ID", "a guest is saved as other bytes: %v", err)
	}
	_ = g.Unload() // it may not be connected
	_ = g.Receive(vmbus.Append(nil, &vmbus.UnloadComplete{}))
	return nil
}

func refusedState(err error) error {
	if !errors.Is(err, vmbus.ErrProtocol) {
		return violated("whose fault", "%v", err)
	}
	return nil
}

// savedSeeds are busy connections, saved.
func savedSeeds(fs.FS) ([][]byte, error) {
	var seeds [][]byte
	for _, v := range []vmbus.Version{vmbus.V1, vmbus.Iron, vmbus.Copper} {
		for _, manual := range []byte{0, 1} {
			w := newHostBus(v == vmbus.Copper)
			w.connect(v)
			in := &input{seed{}.u8(hostTiming, manual, hostTyped, 1, 1, 0, 40, hostTyped, 3, 1, 0, 20, hostTyped, 8, 1, 1, hostTyped, 15, 2, 0, 4, hostTyped, 9, 1, 1)}
			for in.more() {
				w.play(in)
			}
			b, err := w.core.Save()
			if err != nil {
				return nil, err
			}
			seeds = append(seeds, seed{0}.bytes(b), seed{1}.bytes(b))
		}
	}
	for _, setup := range []byte{0, 9, 9 | 0x40, 10 | 0x80} {
		w := newGuestBus(setup)
		if err := w.core.Connect(); err != nil {
			return nil, err
		}
		w.run()
		in := &input{seed{}.u8(guestWish, 0, 1, 4, guestWish, 1, 2, guestTiming, 1, guestWish, 0, 3, 2, guestWish, 4, 1, 1, guestWish, 5, 1, 1)}
		for in.more() {
			w.play(in)
		}
		b, err := w.core.Save()
		if err != nil {
			return nil, err
		}
		seeds = append(seeds, seed{0}.bytes(b))
	}
	return seeds, nil
}
