package fuzz

import (
	"fmt"
	"io/fs"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/sim/world"
	"github.com/hvlab/hvlab/vmbus"
)

// A byteChooser takes a world's choices from an input.
type byteChooser struct{ in *input }

// pickAny is the first byte that chooses among all steps alike; those below it
// choose by weight, so that most inputs do what usually happens.
const pickAny = 0xE0

// Choose implements world.Chooser.
func (c byteChooser) Choose(steps []world.Step, weights []uint16) int {
	b := int(c.in.u8())
	if b >= pickAny {
		return int(c.in.u8()) % len(steps)
	}
	total := 0
	for _, w := range weights {
		total += int(w)
	}
	at := b * total / pickAny
	for i, w := range weights {
		if at -= int(w); at < 0 {
			return i
		}
	}
	return len(steps) - 1
}

// Draw implements world.Chooser.
func (c byteChooser) Draw(n int) int {
	switch {
	case n <= 1:
		return 0
	case n <= 1<<8:
		return int(c.in.u8()) % n
	case n <= 1<<16:
		return int(c.in.u16()) % n
	}
	return int(c.in.u32()>>1) % n
}

// Worlds of an input: more steps and guests say little more, and cost a lot.
const (
	worldMaxSteps  = 2000
	worldMaxGuests = 3
	worldHeadBytes = 4
	shrinkTries    = 200
)

// World runs a deterministic world whose scheduler takes its choices from data:
// a byte for guests and faults, one for the version, one for the rings, one as
// seed of contents, then the choices. A finding comes with a scenario file.
func World(data []byte) error {
	in := &input{data}
	o := worldOptions(in)
	o.Steps = min(max(len(data)-worldHeadBytes, 1), worldMaxSteps)
	o.Chooser = byteChooser{in}
	r, err := world.Run(o)
	if err != nil {
		return violated("I-STATE-LEGAL", "%+v: %v", o, err)
	}
	if len(r.Findings) == 0 {
		return nil
	}
	small := world.Shrink(r, shrinkTries)
	return &Violation{
		Property: fmt.Sprint(r.Findings[0].Invariant),
		Detail:   fmt.Sprint(r.Findings[0]),
		Trace:    "a scenario for hvlab sim -replay FILE:\n" + small.Scenario(),
	}
}

func worldOptions(in *input) world.Options {
	kind, version, rings := in.u8(), in.u8(), in.u8()
	versions := append([]vmbus.Version{0}, vmbus.Versions()...)
	o := world.Options{
		Guests:  1 + int(kind&0x3)%worldMaxGuests,
		Version: versions[int(version)%len(versions)],
		Seed:    uint64(in.u8()),
	}
	if rings != 0 {
		o.RingPages = channel.MinRingPages + int(rings)%8
	}
	switch kind >> 2 % 3 {
	case 1:
		o.Legal = true
	case 2:
		o.Hostile = true
	}
	return o
}

// worldSeeds are choices of a generator that has nothing to do with Go's.
func worldSeeds(fs.FS) ([][]byte, error) {
	var seeds [][]byte
	x := uint32(1)
	for kind := range byte(12) {
		for _, length := range []int{100, 400} {
			s := seed{kind, byte(length) % 13 * kind, kind % 3, kind}
			for range length {
				x = x*1664525 + 1013904223
				s = append(s, byte(x>>24))
			}
			seeds = append(seeds, s)
		}
	}
	return seeds, nil
}
