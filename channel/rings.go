package channel

import (
	"fmt"

	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A RingError reports a GPADL that cannot hold the ring pair an open asks for.
type RingError struct {
	Reason string
}

func (e *RingError) Error() string { return "channel: the ring GPADL " + e.Reason }

// Is makes a RingError match vmbus.ErrProtocol: it is the guest's fault.
func (e *RingError) Is(target error) bool { return target == vmbus.ErrProtocol }

// SplitRings returns the page numbers of the two rings that share one GPADL:
// pages [0, hostOffset) are the guest-to-host ring, the rest the host-to-guest
// ring, each at least MinRingPages. A GPADL with other than one page-aligned
// range of whole pages, or an offset outside it, is a *RingError.
// Source: vmbus-control.md 4.4, ringbuffer.md 11.
func SplitRings(ranges []Range, hostOffset uint32) (toHost, toGuest []uint64, err error) {
	if len(ranges) != 1 {
		return nil, nil, &RingError{fmt.Sprintf("has %d ranges, not one", len(ranges))}
	}
	r := ranges[0]
	pages := len(r.PFNs)
	switch {
	case r.ByteOffset != 0:
		return nil, nil, &RingError{fmt.Sprintf("starts %#x bytes into its first page", r.ByteOffset)}
	case r.ByteCount%pageBytes != 0:
		return nil, nil, &RingError{fmt.Sprintf("has %#x bytes, not whole pages", r.ByteCount)}
	case int64(hostOffset) < MinRingPages:
		return nil, nil, &RingError{fmt.Sprintf("leaves %d pages to the guest-to-host ring, at least %d are needed", hostOffset, MinRingPages)}
	case int64(pages)-int64(hostOffset) < MinRingPages && !putback.On(putback.HC14):
		return nil, nil, &RingError{fmt.Sprintf("has %d pages, too few for a host-to-guest ring at page %d", pages, hostOffset)}
	}
	return r.PFNs[:hostOffset], r.PFNs[hostOffset:], nil
}

// Rings is the ring pair of an open channel, seen from one end: In is read, Out
// is written. InPages and OutPages count the control page too.
type Rings struct {
	In                *ringbuffer.Reader
	Out               *ringbuffer.Writer
	InPages, OutPages int
}

// MapHostRings resolves both halves of the ring GPADL in mem once and returns
// the host's ends. Page numbers outside the guest's memory are an error; so are
// indices that are not valid.
func MapHostRings(mem guestmem.Memory, toHost, toGuest []uint64) (*Rings, error) {
	in, err := guestmem.Resolve(mem, toHost)
	if err != nil {
		return nil, fmt.Errorf("channel: guest-to-host ring: %w", err)
	}
	out, err := guestmem.Resolve(mem, toGuest)
	if err != nil {
		return nil, fmt.Errorf("channel: host-to-guest ring: %w", err)
	}
	return newRings(in, out)
}

// NewGuestRings prepares both rings in pages, which the guest owns, and returns
// its ends: the first outPages pages are the guest-to-host ring.
func NewGuestRings(pages []*guestmem.Page, outPages int) (*Rings, error) {
	if outPages < MinRingPages || len(pages)-outPages < MinRingPages {
		return nil, fmt.Errorf("channel: rings of %d and %d pages, each needs %d: %w", outPages, len(pages)-outPages, MinRingPages, vmbus.ErrState)
	}
	out, in := pages[:outPages], pages[outPages:]
	for _, ring := range [][]*guestmem.Page{out, in} {
		if err := ringbuffer.Init(ring); err != nil {
			return nil, err
		}
	}
	return newRings(in, out)
}

func newRings(in, out []*guestmem.Page) (*Rings, error) {
	r, err := ringbuffer.NewReader(in)
	if err != nil {
		return nil, err
	}
	w, err := ringbuffer.NewWriter(out)
	if err != nil {
		return nil, err
	}
	return &Rings{In: r, Out: w, InPages: len(in), OutPages: len(out)}, nil
}

// MapGuestRings returns the guest's ends of rings that are in use already, such
// as those of a guest that was saved: NewGuestRings without preparing them.
// Indices that are not valid are an error.
func MapGuestRings(pages []*guestmem.Page, outPages int) (*Rings, error) {
	if outPages < MinRingPages || len(pages)-outPages < MinRingPages {
		return nil, &RingError{fmt.Sprintf("has rings of %d and %d pages, each needs %d", outPages, len(pages)-outPages, MinRingPages)}
	}
	return newRings(pages[outPages:], pages[:outPages])
}
