package guestmem_test

import (
	"errors"
	"fmt"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A guest allocates pages and sends their PFNs; the host resolves them. Both
// then hold the same pages.
func Example() {
	heap := guestmem.NewHeap(guestmem.HeapOptions{Layout: guestmem.ContiguousPages})
	block, err := heap.Alloc(2)
	if err != nil {
		panic(err)
	}
	copy(block.Pages[1].Bytes(), "from the guest")

	pages, err := guestmem.Resolve(heap, block.PFNs) // on the host
	if err != nil {
		panic(err)
	}
	fmt.Printf("PFN %#x: %s\n", block.PFNs[1], pages[1].Bytes()[:14])

	if err := heap.Free(block); err != nil {
		panic(err)
	}
	_, err = heap.Page(block.PFNs[1])
	fmt.Println(err, errors.Is(err, guestmem.ErrNoPage))
	// Output:
	// PFN 0x1001: from the guest
	// guestmem: PFN 0x1001 is not backed true
}

// The RAM of a virtual machine belongs to its monitor.
func ExampleNewRegion() {
	ram := make([]byte, 16*guestmem.PageSize)
	region, err := guestmem.NewRegion(0, ram)
	if err != nil {
		panic(err)
	}
	page, err := region.Page(3)
	if err != nil {
		panic(err)
	}
	page.Store32(8, 0x2A)
	fmt.Println(ram[3*guestmem.PageSize+8])
	// Output: 42
}

// An event flag interrupts only when it rises, so setting it must tell what it
// was.
func ExamplePage_Or32() {
	heap := guestmem.NewHeap(guestmem.HeapOptions{})
	block, err := heap.Alloc(1)
	if err != nil {
		panic(err)
	}
	flags := block.Pages[0]
	fmt.Println(flags.Or32(0, 1<<5)&(1<<5) == 0, flags.Or32(0, 1<<5)&(1<<5) == 0)
	// Output: true false
}
