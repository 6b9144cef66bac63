package fuzz

import (
	"bytes"
	"errors"
	"io/fs"

	"github.com/hvlab/hvlab/vmbus"
)

// GuestMessage parses one message as a host does: a byte that chooses the
// version, one with the features, the message.
func GuestMessage(data []byte) error { return oneMessage(vmbus.GuestToHost, data) }

// HostMessage parses one message as a guest does.
func HostMessage(data []byte) error { return oneMessage(vmbus.HostToGuest, data) }

func oneMessage(from vmbus.Direction, data []byte) error {
	in := &input{data}
	n := in.negotiated()
	b := in.bytes(len(in.left))
	m, tail, err := vmbus.ParseFrom(from, b, n)
	if err := checkAlignments(from, b, n, m, err); err != nil {
		return err
	}
	if err != nil {
		if !errors.Is(err, vmbus.ErrProtocol) || m != nil || tail != nil || err.Error() == "" {
			return violated("whose fault", "%x: %v %v %v", b, m, tail, err)
		}
		return nil
	}
	if m.Type().Direction() != from || !vmbus.Available(m.Type(), n) {
		return violated("I-VERSION", "%T was accepted from the %v side at %v", m, from, n)
	}
	own := append(vmbus.Append(nil, m), tail...)
	if want := canonical(b, m); !bytes.Equal(own, want) {
		return violated("encode of parse", "%T loses bytes:\n%x\n%x", m, want, own)
	}
	again, _, err := vmbus.Parse(own, n)
	if err != nil || !bytes.Equal(own, append(vmbus.Append(nil, again), tail...)) {
		return violated("parse of encode", "%T does not survive its own encoding: %v", m, err)
	}
	if words := vmbus.Words(tail); len(words) != len(tail)/8 {
		return violated("I-LEN", "%d words in %d bytes", len(words), len(tail))
	}
	for _, f := range vmbus.Fields(m) {
		_ = f.String() // must not panic
	}
	return nil
}

// negotiated takes a version, 0 for none, and its features.
func (in *input) negotiated() vmbus.Negotiated {
	versions := append([]vmbus.Version{0}, vmbus.Versions()...)
	return vmbus.Negotiated{
		Version:  versions[int(in.u8())%len(versions)],
		Features: vmbus.Features(in.u8()) & vmbus.AllFeatures,
	}
}

// versionByte is what negotiated reads as v.
func versionByte(v vmbus.Version) byte {
	for i, known := range vmbus.Versions() {
		if v == known {
			return byte(i + 1)
		}
	}
	return 0
}

// checkAlignments: where in memory the bytes lie makes no difference (RG-13).
func checkAlignments(from vmbus.Direction, b []byte, n vmbus.Negotiated, want vmbus.Message, wantErr error) error {
	moved := make([]byte, len(b)+8)
	for shift := 1; shift < 8; shift += 3 {
		at := moved[shift : shift+len(b)]
		copy(at, b)
		m, _, err := vmbus.ParseFrom(from, at, n)
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(vmbus.Append(nil, m), vmbus.Append(nil, want)) {
			return violated("RG-13", "%x is %v, %v at one place and %v, %v at another", b, want, wantErr, m, err)
		}
	}
	return nil
}

// canonical is b with everything zero that Parse ignores: the reserved word of
// the header, and padding. All else must come back.
func canonical(b []byte, m vmbus.Message) []byte {
	b = bytes.Clone(b)
	clear(b[4:8])
	switch m.(type) {
	case *vmbus.VersionResponse3:
		clear(b[20:24])
		clear(b[10:12])
	case *vmbus.VersionResponse, *vmbus.VersionResponse2:
		clear(b[10:12])
	}
	return b
}

func guestMessageFormSeeds(vectors fs.FS) ([][]byte, error) {
	return messageFormSeeds(vmbus.GuestToHost, vectors)
}

func hostMessageFormSeeds(vectors fs.FS) ([][]byte, error) {
	return messageFormSeeds(vmbus.HostToGuest, vectors)
}

// messageFormSeeds are the fault catalogue's messages at three versions, the
// vectors and the recorded ones at their own.
func messageFormSeeds(dir vmbus.Direction, vectors fs.FS) ([][]byte, error) {
	var seeds [][]byte
	add := func(n vmbus.Negotiated, b []byte) {
		seeds = append(seeds, seed{}.u8(versionByte(n.Version), byte(n.Features)).bytes(b))
	}
	for _, line := range FaultLines(layerOf(dir)) {
		for _, b := range line.Parts {
			add(vmbus.Negotiated{}, b)
			add(vmbus.Negotiated{Version: vmbus.Iron}, b)
			add(vmbus.Negotiated{Version: vmbus.Copper, Features: vmbus.AllFeatures}, b)
		}
	}
	recorded, err := recordedMessages(vectors)
	for _, m := range recorded {
		if m.dir == dir {
			add(m.negotiated, m.bytes)
		}
	}
	return seeds, err
}
