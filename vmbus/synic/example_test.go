package synic_test

import (
	"errors"
	"fmt"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// A host and a guest exchange one message each way and one signal. The guest
// sets its processor up as Linux does.
func Example() {
	heap := guestmem.NewHeap(guestmem.HeapOptions{})
	block, err := heap.Alloc(2)
	if err != nil {
		panic(err)
	}
	partition := synic.NewPartition(heap, 1)
	var host synic.Port = partition
	var guest synic.GuestPort = partition

	const on = 1
	for _, w := range []struct {
		msr   uint32
		value uint64
	}{
		{synic.MSRSIMP, block.PFNs[0]*guestmem.PageSize | on},
		{synic.MSRSIEFP, block.PFNs[1]*guestmem.PageSize | on},
		{synic.MSRSINT0 + synic.MessageSINT, 0xF3},
		{synic.MSRSCONTROL, on},
	} {
		if err := guest.WriteMSR(0, w.msr, w.value); err != nil {
			panic(err)
		}
	}
	guest.SetInterrupt(func(vp uint32, vector uint8) {
		fmt.Printf("guest: vector %#x on VP %d\n", vector, vp)
		synic.ScanFlags(block.Pages[1], synic.MessageSINT, func(flag uint16) {
			fmt.Println("guest: flag", flag)
		})
		if m, ok := synic.ReadSlot(block.Pages[0], synic.MessageSINT); ok {
			fmt.Printf("guest: message %q\n", m.Payload())
			if synic.FreeSlot(block.Pages[0], synic.MessageSINT) {
				_ = guest.WriteMSR(vp, synic.MSREOM, 0)
			}
		}
	})
	if err := host.BindMessages(4, func(payload []byte) synic.Status {
		fmt.Printf("host: message %q\n", payload)
		return synic.StatusSuccess
	}); err != nil {
		panic(err)
	}

	fmt.Println(guest.PostMessage(synic.AppendPostMessage(nil, 4, []byte("contact"))).String())
	to := synic.Target{VP: 0, SINT: synic.MessageSINT}
	fmt.Println(host.Post(to, []byte("response")))
	fmt.Println(host.Signal(to, 3))
	// Output:
	// host: message "contact"
	// SUCCESS
	// guest: vector 0xf3 on VP 0
	// guest: message "response"
	// <nil>
	// guest: vector 0xf3 on VP 0
	// guest: flag 3
	// <nil>
}

// A message that cannot be delivered yet stays the host's, who is told when to
// try again.
func ExamplePort() {
	heap := guestmem.NewHeap(guestmem.HeapOptions{})
	partition := synic.NewPartition(heap, 1)
	to := synic.Target{VP: 0, SINT: synic.MessageSINT}
	partition.SlotFree(func(to synic.Target) { fmt.Println("try", to, "again") })

	err := partition.Post(to, []byte("an offer"))
	fmt.Println(err, errors.Is(err, synic.ErrSlotBusy))

	block, err := heap.Alloc(1)
	if err != nil {
		panic(err)
	}
	for _, w := range [][2]uint64{ // now the guest sets its processor up
		{synic.MSRSIMP, block.PFNs[0]*guestmem.PageSize | 1},
		{synic.MSRSINT0 + synic.MessageSINT, 0xF3},
		{synic.MSRSCONTROL, 1},
	} {
		if err := partition.WriteMSR(0, uint32(w[0]), w[1]); err != nil {
			panic(err)
		}
	}
	fmt.Println(partition.Post(to, []byte("an offer")))
	// Output:
	// synic: post to VP 0 SINT 2: the SynIC is disabled true
	// try VP 0 SINT 2 again
	// <nil>
}

// A monitor for a real kernel hands a hypercall's registers over as they are.
func ExamplePartition_Hypercall() {
	partition := synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 1)
	if err := partition.BindEvents(0x2002, func(flag uint16) { fmt.Println("doorbell, flag", flag) }); err != nil {
		panic(err)
	}
	rax := partition.Hypercall(0x1005D, 0x2002) // RCX, RDX: HvCallSignalEvent, fast
	fmt.Println(synic.Status(rax).String())
	// Output:
	// doorbell, flag 0
	// SUCCESS
}
