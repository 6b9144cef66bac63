package vmbus_test

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/hvlab/hvlab/vmbus"
)

// A Linux guest shares 2 pages with the host; the page numbers are the tail.
func ExampleParse() {
	b, _ := hex.DecodeString("0800000000000000" + "02000000" + "101e0e00" + "1800" + "0100" +
		"0020000000000000" + "0000010000000000" + "0100010000000000")

	m, tail, err := vmbus.Parse(b, vmbus.Negotiated{Version: vmbus.Iron})
	if err != nil {
		fmt.Println(err)
		return
	}
	switch m := m.(type) {
	case *vmbus.GPADLHeader:
		fmt.Printf("%v on channel %d, %d range, words %#x\n", m.GPADL, m.Channel, m.RangeCount, vmbus.Words(tail))
	}
	// Output: 0xe1e10 on channel 2, 1 range, words [0x2000 0x10000 0x10001]
}

// What was negotiated decides the form: from 6.0 on an open may be longer.
func ExampleParse_negotiated() {
	b := vmbus.Append(nil, &vmbus.OpenChannel2{EventFlag: 2})
	for _, n := range []vmbus.Negotiated{
		{Version: vmbus.Iron},
		{Version: vmbus.Copper, Features: vmbus.GuestSignalParams},
	} {
		m, tail, _ := vmbus.Parse(b, n)
		fmt.Printf("%v: %s, %d bytes left\n", n.Version, vmbus.Name(m), len(tail))
	}
	// Output:
	// 5.3: OpenChannel, 8 bytes left
	// 6.0: OpenChannel2, 0 bytes left
}

// Errors are the peer's fault: drop the message, keep the connection.
func ExampleParse_error() {
	_, _, err := vmbus.Parse([]byte{5, 0, 0, 0, 0, 0, 0, 0}, vmbus.Negotiated{Version: vmbus.Iron})
	fmt.Println(err)
	fmt.Println(errors.Is(err, vmbus.ErrProtocol))
	// Output:
	// vmbus: message type 5 (OpenChannel): have 0 bytes after the header, need 140
	// true
}

// A guest never sends an offer.
func ExampleParseFrom() {
	b := vmbus.Append(nil, &vmbus.OfferChannel{Channel: 1})
	_, _, err := vmbus.ParseFrom(vmbus.GuestToHost, b, vmbus.Negotiated{Version: vmbus.Iron})
	fmt.Println(err)
	// Output: vmbus: message type 1 (OfferChannel) came guest>host
}

// Append is the other way round.
func ExampleAppend() {
	fmt.Printf("%x\n", vmbus.Append(nil, &vmbus.GPADLCreated{Channel: 2, GPADL: 0xE1E10, Status: vmbus.StatusFailure}))
	// Output: 0a0000000000000002000000101e0e00ffff0080
}

// Traces and tools print any message without knowing it.
func ExampleFields() {
	fmt.Print("OpenResult")
	for _, f := range vmbus.Fields(&vmbus.OpenResult{Channel: 2, OpenID: 2, Status: vmbus.StatusFailure}) {
		fmt.Print(" ", f)
	}
	fmt.Println()
	// Output: OpenResult channel_id=2 open_id=2 status=FAILURE
}

// The printed form and the wire differ: a GUID is kept as on the wire.
func ExampleGUID() {
	g, _ := vmbus.ParseGUID("00001388-facb-11e6-bd58-64006a7986d3") // the socket service of port 5000
	fmt.Println(g)
	fmt.Printf("%x\n", g[:])
	// Output:
	// 00001388-facb-11e6-bd58-64006a7986d3
	// 88130000cbfae611bd5864006a7986d3
}
