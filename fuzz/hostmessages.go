package fuzz

import (
	"io/fs"
	"strings"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// Steps of HostMessages; the low bits of a byte choose one.
const (
	hostRaw     = iota // a message as bytes, behind their length
	hostTyped          // a message by kind, with small ids
	hostDevice         // a device answers
	hostWish           // the host's own side does something
	hostRestore        // save and restore
	hostStale          // a device answers again
	hostTiming         // devices answer at once or not; the slot is busy or not
	hostSteps
)

// HostMessages runs a host core against a guest and devices that do what data
// says: a byte that chooses the version (and in its highest bit every feature),
// then steps.
func HostMessages(data []byte) error {
	return traced(hostMessages(data, nil), func(trace *strings.Builder) error { return hostMessages(data, trace) })
}

func hostMessages(data []byte, trace *strings.Builder) error {
	in := &input{data}
	setup := in.u8()
	w := newHostBus(setup&0x80 != 0)
	w.trace = trace
	versions := vmbus.Versions()
	if setup&0x40 == 0 { // else the connection's first message is the fuzzer's
		w.connect(versions[int(setup&0x3F)%len(versions)])
	}
	for in.more() && w.fault == nil {
		w.play(in)
	}
	w.finish()
	return w.fault
}

func (w *hostBus) play(in *input) {
	switch in.u8() % hostSteps {
	case hostRaw:
		w.receive(in.block())
	case hostTyped:
		for _, b := range guestTyped(in) {
			w.receive(b)
		}
	case hostDevice:
		w.answer(int(in.u8()), in.status())
	case hostWish:
		w.wish(in)
	case hostRestore:
		w.restore()
	case hostStale:
		w.answerAgain(int(in.u8()), in.status())
	case hostTiming:
		v := in.u8()
		w.manual, w.busy = v&1 != 0, v&2 != 0
	}
	w.run()
}

// status is a device's answer.
func (in *input) status() uint32 {
	switch v := in.u8(); v {
	case 0xFF:
		return vmbus.StatusFailure
	default:
		return uint32(v & 1)
	}
}

// wish is something that the host's applications want.
func (w *hostBus) wish(in *input) {
	switch v := in.u8(); v % 6 {
	case 0:
		w.publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{in.u8() % 4}, SubChannel: uint16(v / 6 % 2)}})
	case 1:
		if len(w.offers) > 0 {
			_ = w.core.Revoke(w.offers[int(in.u8())%len(w.offers)]) // it may be withdrawn already
		}
	case 2:
		if d, ok := w.dial(); ok {
			if id, err := w.core.AcceptSocket(d.Endpoint, d.Service); err == nil {
				w.offers = append(w.offers, id)
			}
		}
	case 3:
		if d, ok := w.dial(); ok {
			w.core.RefuseSocket(d.Endpoint, d.Service)
		}
	case 4:
		w.core.Reset()
		clear(w.asked) // a reset ends what was asked before it
		w.silent = false
	case 5:
		w.core.Repeat()
		w.waiting = w.waiting[:0] // every one of them is asked again
	}
}

func (w *hostBus) dial() (d dialed, ok bool) {
	if len(w.dials) == 0 {
		return dialed{}, false
	}
	r := w.dials[0]
	w.dials = w.dials[1:]
	return dialed{r.Endpoint, r.Service}, true
}

type dialed struct{ Endpoint, Service vmbus.GUID }

// guestTyped is one guest message by kind, or the several that make a GPADL.
// The ids are small, so that messages meet.
func guestTyped(in *input) [][]byte {
	kind, ch, x := in.u8(), vmbus.ChannelID(in.u8()%5), in.u8()
	gpadl := vmbus.GPADLID(1 + x%4)
	one := func(m vmbus.Message) [][]byte { return [][]byte{vmbus.Append(nil, m)} }
	switch kind % 17 {
	case 0:
		return one(&vmbus.RequestOffers{})
	case 1, 2:
		return gpadlMessages(ch, gpadl, 1+int(in.u8()))
	case 3:
		return one(&vmbus.OpenChannel{Channel: ch, OpenID: uint32(x), Ring: gpadl, TargetVP: uint32(x >> 6), HostOffset: uint32(in.u8())})
	case 4:
		return one(&vmbus.OpenChannel2{OpenChannel: vmbus.OpenChannel{Channel: ch, OpenID: uint32(x), Ring: gpadl, HostOffset: uint32(in.u8())},
			ConnectionID: in.u32(), EventFlag: in.u16(), OpenFlags: in.u16()})
	case 5:
		return one(&vmbus.CloseChannel{Channel: ch})
	case 6:
		return one(&vmbus.GPADLTeardown{Channel: ch, GPADL: gpadl})
	case 7:
		return one(&vmbus.RelIDReleased{Channel: ch})
	case 8:
		return one(&vmbus.TLConnectRequest{Endpoint: vmbus.GUID{byte(ch)}, Service: vmbus.GUID{x}})
	case 9:
		return one(&vmbus.ModifyChannel{Channel: ch, TargetVP: uint32(x)})
	case 10:
		return one(&vmbus.ModifyConnection{ParentToChild: uint64(ch) << 12, ChildToParent: uint64(x) << 12})
	case 11:
		return one(&vmbus.Pause{})
	case 12:
		return one(&vmbus.Resume{})
	case 13:
		return one(&vmbus.Unload{})
	case 14:
		return one(&vmbus.InitiateContact2{InitiateContact: vmbus.InitiateContact{
			Version: vmbus.Versions()[int(x)%len(vmbus.Versions())], TargetVP: uint32(ch), TargetInfo: in.u64()}})
	case 15:
		return one(&vmbus.OpenReservedChannel{Channel: ch, TargetVP: uint32(x), TargetSINT: 2, Ring: gpadl, HostOffset: uint32(in.u8())})
	default:
		return one(&vmbus.CloseReservedChannel{Channel: ch, TargetVP: uint32(x), TargetSINT: 2})
	}
}

// gpadlMessages announces one range of whole pages.
func gpadlMessages(ch vmbus.ChannelID, id vmbus.GPADLID, pages int) (list [][]byte) {
	r := channel.Range{ByteCount: uint32(pages) * vmbus.PageBytes}
	for i := range pages {
		r.PFNs = append(r.PFNs, uint64(0x100+i))
	}
	parts, err := channel.Announce(ch, id, r)
	if err != nil {
		panic(err) // at most 256 pages: it fits
	}
	for _, p := range parts {
		list = append(list, vmbus.AppendWords(vmbus.Append(nil, p.Message), p.Words))
	}
	return list
}

func hostMessageSeeds(vectors fs.FS) ([][]byte, error) {
	var seeds [][]byte
	for _, line := range FaultLines("host") {
		for _, setup := range []byte{5, versionByte(vmbus.Iron) - 1, 0x80 | (versionByte(vmbus.Copper) - 1), 0x40} {
			s := seed{setup}
			for _, part := range line.Parts {
				s = s.u8(hostRaw).block(part)
			}
			seeds = append(seeds, s)
		}
	}
	const copper = 0x80 | 10
	for _, s := range []seed{ // a life with everything in it, with devices that answer when told
		seed{copper}.u8(hostTyped, 1, 1, 0, 8, hostTyped, 4, 1, 0, 4).bytes(make([]byte, 8)).u8(hostTyped, 9, 1, 1, hostRestore, hostTyped, 5, 1, 0, hostTyped, 6, 1, 0, hostTyped, 7, 1, 0),
		seed{copper}.u8(hostTiming, 1, hostTyped, 1, 1, 0, 8, hostDevice, 0, 0, hostTyped, 15, 1, 0, 4, hostDevice, 0, 0, hostTyped, 13, 0, 0, hostStale, 0, 0, hostTyped, 16, 1, 0),
		seed{copper}.u8(hostTyped, 8, 1, 1, hostWish, 2, hostTyped, 8, 2, 2, hostWish, 3, hostTyped, 11, 0, 0, hostWish, 0, 9, hostTyped, 12, 0, 0, hostWish, 4),
		seed{3}.u8(hostTyped, 1, 2, 1, 40, hostTyped, 3, 2, 1, 20, hostWish, 1, 1, hostTyped, 7, 2, 0, hostTyped, 14, 0, 9).u64(2).u8(hostTyped, 0, 0, 0),
	} {
		seeds = append(seeds, s)
	}
	all, err := conversations(vectors)
	for _, c := range all {
		s := seed{0x40}
		for _, m := range c {
			if m.dir == vmbus.GuestToHost {
				s = s.u8(hostRaw).block(m.bytes)
			}
		}
		seeds = append(seeds, s)
	}
	return seeds, err
}
