package fuzz

import (
	"io/fs"
	"strings"

	"github.com/hvlab/hvlab/vmbus"
)

// Steps of GuestMessages; a byte chooses one.
const (
	guestRaw     = iota // a message as bytes, behind their length
	guestTypedOp        // a message by kind, with small ids
	guestHonest         // the host answers the oldest message that it holds
	guestWish           // a driver or the application wants something
	guestRestore        // save and restore
	guestTiming         // the host answers at once, or when told
	guestSteps
)

// GuestMessages runs a guest core against a host that does what data says: a
// byte that chooses version and dialect (see newGuestBus), then steps.
func GuestMessages(data []byte) error {
	return traced(guestMessages(data, nil), func(trace *strings.Builder) error { return guestMessages(data, trace) })
}

func guestMessages(data []byte, trace *strings.Builder) error {
	in := &input{data}
	w := newGuestBus(in.u8())
	w.trace = trace
	w.misuse("Connect", w.core.Connect())
	first := in.u8()
	w.hold = first&1 != 0 // else an honest host answers, and channels 1 and 2 are offered
	w.run()
	if first&2 != 0 {
		w.open(1, 2, false)
		w.open(2, 20, first&4 != 0)
		w.run()
	}
	for in.more() && w.fault == nil {
		w.play(in)
	}
	w.finish()
	return w.fault
}

func (w *guestBus) play(in *input) {
	switch in.u8() % guestSteps {
	case guestRaw:
		w.receive(in.block())
	case guestTypedOp:
		w.receive(w.hostTyped(in))
	case guestHonest:
		if len(w.held) > 0 {
			m := w.held[0]
			w.held = w.held[1:]
			w.toGuest = append(w.toGuest, honestAnswers(m, w.core.Negotiated())...)
		}
	case guestWish:
		w.wish(in)
	case guestRestore:
		w.restore()
	case guestTiming:
		w.hold = in.u8()&1 != 0
	}
	w.run()
}

func (w *guestBus) wish(in *input) {
	kind, id := in.u8(), vmbus.ChannelID(in.u8()%5)
	switch kind % 11 {
	case 0:
		w.open(id, 1+int(in.u8()%20), false)
	case 1:
		w.open(id, 2, true)
	case 2:
		err := w.core.Close(id)
		w.misuse("Close", err)
		if c := w.channels[id]; err == nil && c != nil {
			c.opening = false // whoever gives up learns nothing more
		}
	case 3:
		w.misuse("Release", w.core.Release(id))
	case 4:
		w.misuse("ModifyChannel", w.core.ModifyChannel(id, uint32(in.u8())))
	case 5:
		w.misuse("RequestSocket", w.core.RequestSocket(vmbus.GUID{in.u8()}, vmbus.GUID{byte(id)}))
	case 6:
		w.misuse("ModifyConnection", w.core.ModifyConnection(uint64(id)<<12, uint64(id)<<12))
	case 7:
		w.misuse("Pause", w.core.Pause())
	case 8:
		w.misuse("Resume", w.core.Resume())
	case 9:
		w.misuse("Unload", w.core.Unload())
	case 10:
		w.misuse("Connect", w.core.Connect())
	}
}

// hostTyped is one host message by kind. The ids are small or some that the
// guest has used, so that messages meet.
func (w *guestBus) hostTyped(in *input) []byte {
	kind, id, x := in.u8(), vmbus.ChannelID(in.u8()%5), in.u8()
	ring := vmbus.GPADLID(x)
	if len(w.rings) > 0 {
		ring = w.rings[int(x)%len(w.rings)].id
	}
	status := uint32(0)
	if x >= 0xC0 {
		status = [...]uint32{1, vmbus.StatusFailure, vmbus.StatusConnectionRefused, 0xC0000001}[x%4]
	}
	messages := [...]vmbus.Message{
		&vmbus.OfferChannel{Channel: id, Interface: vmbus.GUID{x % 2}, Instance: vmbus.GUID{x % 8}, SubChannel: uint16(x / 64), MonitorID: vmbus.NoMonitor},
		&vmbus.RescindChannelOffer{Channel: id},
		&vmbus.OpenResult{Channel: id, OpenID: uint32(id), Status: status},
		&vmbus.OpenResult{Channel: id, Status: status},
		&vmbus.GPADLCreated{Channel: id, GPADL: ring, Status: status},
		&vmbus.GPADLTorndown{GPADL: ring},
		&vmbus.AllOffersDelivered{},
		&vmbus.UnloadComplete{},
		&vmbus.VersionResponse{Supported: x & 1, ConnectionState: x >> 6, VersionOrConnectionID: uint32(id)},
		&vmbus.VersionResponse2{VersionResponse: vmbus.VersionResponse{Supported: 1}, Features: vmbus.Features(x)},
		&vmbus.TLConnectResult{Endpoint: vmbus.GUID{byte(id)}, Service: vmbus.GUID{x}, Status: status},
		&vmbus.ModifyChannelResponse{Channel: id, Status: status},
		&vmbus.PauseResponse{},
		&vmbus.ModifyConnectionResponse{ConnectionState: x},
		&vmbus.CloseReservedChannelResponse{Channel: id},
	}
	return vmbus.Append(nil, messages[int(kind)%len(messages)])
}

func guestMessageSeeds(vectors fs.FS) ([][]byte, error) {
	var seeds [][]byte
	for _, line := range FaultLines("guest") {
		for _, setup := range []byte{9, 9 | 0x40, 10 | 0x80, 0} { // 5.3, the same as Linux, 6.0 with everything, 0.13
			s := seed{setup, 2}
			if line.Setup == "first" {
				s = seed{setup, 1}
			}
			for _, part := range line.Parts {
				s = s.u8(guestRaw).block(part)
			}
			seeds = append(seeds, s)
		}
	}
	for _, s := range []seed{
		{10 | 0x80, 6, guestWish, 4, 1, 1, guestWish, 2, 2, guestWish, 2, 1, guestTypedOp, 1, 1, 0, guestTypedOp, 0, 1, 5, guestWish, 9, 0, guestWish, 10, 0},
		{10 | 0x80, 0, guestTiming, 1, guestWish, 0, 1, 2, guestWish, 4, 1, 1, guestTypedOp, 1, 1, 0, guestHonest, guestHonest, guestRestore, guestHonest},
		{9, 2, guestWish, 5, 1, 7, guestWish, 7, 0, guestWish, 0, 3, 4, guestWish, 8, 0, guestTypedOp, 7, 0, 0, guestWish, 9, 0},
		{9 | 0x40, 2, guestTypedOp, 1, 1, 0, guestTypedOp, 5, 0, 0, guestTypedOp, 0, 1, 9, guestWish, 0, 1, 4, guestTypedOp, 4, 1, 0xC1},
		{9, 0, guestTiming, 1, guestWish, 9, 0, guestWish, 0, 1, 4, guestTypedOp, 7, 0, 0}, // an open of a guest that unloads was never answered
		{0, 3, guestHonest, guestHonest, guestHonest, guestWish, 0, 1, 2, guestHonest, guestHonest, guestWish, 9, 0, guestHonest},
	} {
		seeds = append(seeds, s)
	}
	all, err := conversations(vectors)
	for i, c := range all {
		s := seed{[]byte{5, 9}[i%2] | 0x40, 1} // recorded at 4.1 and 5.3, in this order
		for _, m := range c {
			if m.dir == vmbus.HostToGuest {
				s = s.u8(guestRaw).block(m.bytes)
			}
		}
		seeds = append(seeds, s)
	}
	return seeds, err
}
