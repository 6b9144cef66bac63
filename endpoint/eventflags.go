package endpoint

import (
	"math/bits"

	"github.com/hvlab/hvlab/vmbus"
)

// eventFlags are the event flags of one SINT a guest hands out itself: those in
// use, bit by bit. Flag 0 is reserved (vmbus-control.md 1.4).
type eventFlags [vmbus.EventFlagsPerSINT / 64]uint64

// take returns the lowest free flag, or 0 if all 2047 are taken.
func (f *eventFlags) take() uint16 {
	f[0] |= 1
	for i, w := range f {
		if free := bits.TrailingZeros64(^w); free < 64 {
			f[i] |= 1 << free
			return uint16(i*64 + free)
		}
	}
	return 0
}

// give returns flag n; 0 does nothing.
func (f *eventFlags) give(n uint16) { f[n/64] &^= 1 << (n % 64) }

// taken reports whether flag n is in use.
func (f *eventFlags) taken(n uint16) bool { return f[n/64]>>(n%64)&1 != 0 }

// claim takes flag n itself; 0 does nothing that take would not do.
func (f *eventFlags) claim(n uint16) { f[n/64] |= 1 << (n % 64) }
