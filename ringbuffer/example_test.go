package ringbuffer_test

import (
	"errors"
	"fmt"

	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// ring makes the two ends of a ring over pages of caller-owned memory.
func ring() (*ringbuffer.Writer, *ringbuffer.Reader) {
	const ringPages = 2
	region, err := guestmem.NewRegion(0, make([]byte, ringPages*guestmem.PageSize))
	if err != nil {
		panic(err)
	}
	pages, err := guestmem.Resolve(region, []uint64{0, 1})
	if err != nil {
		panic(err)
	}
	if err := ringbuffer.Init(pages); err != nil {
		panic(err)
	}
	w, err := ringbuffer.NewWriter(pages)
	if err != nil {
		panic(err)
	}
	r, err := ringbuffer.NewReader(pages)
	if err != nil {
		panic(err)
	}
	return w, r
}

// Two packets become visible, and are signalled, together.
func Example() {
	w, r := ring()
	for _, text := range []string{"hello", "hv_sock!"} {
		if err := w.Append(ringbuffer.Header{Type: ringbuffer.InBand}, nil, []byte(text)); err != nil {
			panic(err)
		}
	}
	fmt.Println("signal the reader:", w.Commit())

	buf := make([]byte, 64)
	for {
		h, n, err := r.Next(buf)
		if errors.Is(err, ringbuffer.ErrEmpty) {
			break
		}
		if err != nil {
			panic(err) // the peer broke the protocol: close the channel
		}
		fmt.Printf("%v %q\n", h.Type, buf[:n])
	}
	fmt.Println("signal the writer:", r.Commit())
	// Output:
	// signal the reader: true
	// InBand "hello\x00\x00\x00"
	// InBand "hv_sock!"
	// signal the writer: false
}

// A writer that finds the ring full says how much it needs, looks again, and
// sleeps until the reader signals that so much is free.
func ExampleWriter_SetPending() {
	w, r := ring()
	body := make([]byte, 3000)
	h := ringbuffer.Header{Type: ringbuffer.InBand}
	if err := w.Append(h, nil, body); err != nil {
		panic(err)
	}
	w.Commit()

	err := w.Append(h, nil, body)
	fmt.Println(err, errors.Is(err, ringbuffer.ErrFull))
	ready, err := w.SetPending(ringbuffer.PacketBytes(len(body)))
	fmt.Println("room after all:", ready, err)

	if _, _, err := r.Next(body); err != nil {
		panic(err)
	}
	fmt.Println("signal the writer:", r.Commit())
	w.ClearPending()
	fmt.Println(w.Append(h, nil, body))
	// Output:
	// ringbuffer: full: packet takes 3024 bytes, 1072 are free true
	// room after all: false <nil>
	// signal the writer: true
	// <nil>
}

// A request carries an id from a Requestor; its completion echoes it.
func ExampleRequestor() {
	w, r := ring()
	requests := ringbuffer.NewRequestor[string](0)
	id, err := requests.Begin("read sector 0")
	if err != nil {
		panic(err)
	}
	request := ringbuffer.Header{Type: ringbuffer.InBand, Flags: ringbuffer.FlagCompletion, ID: id}
	if err := w.Append(request, nil, []byte("read")); err != nil {
		requests.Abandon(id)
		panic(err)
	}
	w.Commit()

	got, err := r.Peek()
	if err != nil {
		panic(err)
	}
	// The other end would send a Completion with this id on the opposite ring.
	done, err := requests.Complete(got.ID)
	fmt.Println(got.ID, done, err)
	_, err = requests.Complete(got.ID)
	fmt.Println(err)
	// Output:
	// 1 read sector 0 <nil>
	// ringbuffer: completion of transaction 0x1, which nobody waits for
}
