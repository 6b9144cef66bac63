package world

import (
	"errors"
	"slices"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
)

// A device is an offer of the host that is no socket, and its driver in the guest.
// Both send numbered packets, and check those of the other side.
type device struct {
	w      *World
	m      *machine
	number uint8
	offer  offers.Offer
	policy policy

	reserved bool // the driver opens it as a reserved channel, and polls

	offered *live.Offered       // nil unless published
	seen    *vmbus.OfferChannel // the guest's view of the offer
	driver  *driver             // the guest's, nil unless open or opening
	ends    [2]*packetEnd       // host, guest; nil unless open
	opens   int                 // so far
	refused bool                // the last open failed
	lost    string              // why packets in the rings may be lost: a fault, or a close
}

// A policy is how the ends of a device use their rings: all of it is legal.
type policy struct {
	batch   int  // packets per commit of a reader or writer
	masked  bool // the reader masks signals while it is awake
	pending int  // bytes a blocked writer waits for: 0 is the packet's own size
	low     bool // the guest signals at once, also on a monitored channel
}

// maxPacketBytes is the largest payload of a packet.
const maxPacketBytes = 600

// deviceBudget is how many packets one end sends over an opened channel.
const deviceBudget = 40

// reservedKey makes the draw of reserved channels one of its own.
const reservedKey = 0x7265736572766564

// newDevices draws the devices of a machine. Some are there from the start, others
// are added later; a sub-channel follows its primary.
func (m *machine) newDevices() {
	w := m.w
	n := w.setup.Draw(5)
	for i := range n {
		d := &device{w: w, m: m, number: uint8(i + 1)}
		d.offer.Interface = vmbus.GUIDFromUUID(w.uuid())
		d.offer.Instance = vmbus.GUIDFromUUID(w.uuid())
		if i > 0 && m.version >= vmbus.Win8 && w.setup.Draw(2) == 0 {
			primary := m.devices[w.setup.Draw(i)]
			if primary.offer.SubChannel == 0 {
				d.offer.Key = primary.offer.Key
				d.offer.SubChannel = uint16(i)
			}
		}
		if w.setup.Draw(3) == 0 {
			d.offer.Monitor = &offers.Monitor{Latency: uint16(w.setup.Draw(20000))}
		}
		d.offer.NotDedicated = w.setup.Draw(4) == 0
		d.policy = policy{
			batch: 1 + w.setup.Draw(4), masked: w.setup.Draw(2) == 0,
			pending: [...]int{0, 0, 4120, -8}[w.setup.Draw(4)], low: w.setup.Draw(3) == 0,
		}
		// Not drawn after the others, which would all be different without it.
		d.reserved = m.version >= vmbus.Win10 && mixKey(w.o.Seed^reservedKey, uint64(m.number)<<8|uint64(i))%4 == 0
		m.devices = append(m.devices, d)
		if w.setup.Draw(2) == 0 && !w.o.NoDevices {
			d.publish()
		}
	}
	if w.o.NoDevices { // drawn all the same: everything else is as with them
		m.devices = nil
	}
}

// publish makes the offer; a sub-channel without its primary fails, and may be
// tried again.
func (d *device) publish() {
	h := &hostDevice{d: d}
	h.offered = d.m.host.Prepare(h)
	d.offered = h.offered
	h.offered.Publish(d.offer)
}

// A hostDevice is the host's half of one publication: live.Device.
type hostDevice struct {
	d       *device
	offered *live.Offered
	end     *packetEnd
}

// Open is part of live.Device.
func (h *hostDevice) Open(c *live.HostChannel) error {
	if old := h.d.ends[0]; c.Restored && old != nil {
		h.end = old.renewed(c.Rings.In, c.Rings.Out, c.Signal)
	} else {
		h.end = h.d.newEnd(hostSide, c.Rings.In, c.Rings.Out, c.Signal)
	}
	h.d.ends[0] = h.end
	return nil
}

// Doorbell is part of live.Device.
func (h *hostDevice) Doorbell() {
	if h.end != nil {
		h.end.wake()
	}
}

// Close is part of live.Device.
func (h *hostDevice) Close() {
	if h.d.m.moving { // to the next end of the host, which opens it again
		return
	}
	h.d.lose("the host closed it")
	h.d.drop(0, h.end)
	h.end = nil
}

// Gone is part of live.Device.
func (h *hostDevice) Gone(err error) {
	if h.d.m.moving {
		return
	}
	h.d.w.note("guest%d device %d: gone, %v", h.d.m.number, h.d.number, err)
	if h.d.offered == h.offered {
		h.d.offered = nil
	}
}

// A driver is the guest's half of one open: live.Driver.
type driver struct {
	d      *device
	end    *packetEnd
	offer  vmbus.OfferChannel
	closed bool
	moves  int // ModifyChannels without an answer
}

// Opened is part of live.Driver.
func (g *driver) Opened(c *live.GuestChannel) {
	if g.closed { // the open could not be stopped any more
		return
	}
	g.d.refused = false
	if c.Restored && g.end != nil {
		g.end = g.end.renewed(c.Rings.In, c.Rings.Out, c.Signal)
	} else {
		g.end = g.d.newEnd(guestSide, c.Rings.In, c.Rings.Out, c.Signal)
	}
	if g.d.driver == g {
		g.d.ends[1] = g.end
	}
}

// OpenFailed is part of live.Driver.
func (g *driver) OpenFailed(err error) {
	d := g.d
	d.refused = true
	if d.w.o.Trace != nil {
		d.w.note("guest%d device %d: open failed: %v", d.m.number, d.number, err)
	}
	d.w.hit(LiveCalls)
	g.end0()
}

func (g *driver) end0() {
	if g.d.driver == g {
		g.d.driver = nil
	}
}

// Doorbell is part of live.Driver.
func (g *driver) Doorbell() {
	if g.end != nil {
		g.end.wake()
	}
}

// Rescinded is part of live.Driver.
func (g *driver) Rescinded() {
	g.d.lose("it was rescinded")
	g.d.drop(1, g.end)
	g.end = nil
	g.end0()
}

func (d *device) lose(why string) {
	if d.lost == "" {
		d.lost = why
	}
}

// drop takes the rings from an end.
func (d *device) drop(which int, e *packetEnd) {
	if e == nil {
		return
	}
	e.dead = true
	if d.ends[which] == e {
		d.ends[which] = nil
	}
}

// A packetEnd is one end of the open channel of a device.
type packetEnd struct {
	d         *device
	side      side
	in        *ringbuffer.Reader
	out       *ringbuffer.Writer
	signal    func()
	life      uint64 // of the channel: part of every packet
	sent, got uint64
	readWait  bool
	writeWait bool
	dead      bool
	broken    bool
}

func (d *device) newEnd(s side, in *ringbuffer.Reader, out *ringbuffer.Writer, signal func()) *packetEnd {
	if s == hostSide { // it opens first
		d.opens++
		d.lost = ""
	}
	d.w.hit(LiveCalls)
	return &packetEnd{d: d, side: s, in: in, out: out, signal: signal, life: uint64(d.opens)}
}

// renewed is what takes e's place over the same rings when its bus was restored: the
// packets go on.
func (e *packetEnd) renewed(in *ringbuffer.Reader, out *ringbuffer.Writer, signal func()) *packetEnd {
	n := *e
	n.in, n.out, n.signal, n.dead = in, out, signal, false
	e.dead = true
	return &n
}

// wake is the doorbell.
func (e *packetEnd) wake() { e.readWait, e.writeWait = false, false }

func (e *packetEnd) canSend() bool { return e.sent < deviceBudget && !e.writeWait && !e.broken }

// send appends packets, a batch, and publishes them.
func (e *packetEnd) send() {
	w, d := e.d.w, e.d
	e.out.ClearPending()
	for range d.policy.batch {
		if e.sent >= deviceBudget {
			break
		}
		n := e.size(e.sent)
		b := w.apps.buf[:n]
		pattern(e.key(e.side), e.sent*maxPacketBytes, b)
		err := e.out.Append(ringbuffer.Header{Type: ringbuffer.InBand, ID: e.sent + 1}, b, nil)
		if errors.Is(err, ringbuffer.ErrFull) {
			e.commitOut()
			e.block(ringbuffer.PacketBytes(n))
			return
		}
		if err != nil {
			e.broke(err)
			return
		}
		e.sent++
	}
	e.commitOut()
}

func (e *packetEnd) commitOut() {
	if e.out.Commit() {
		e.signal()
	}
	e.polled()
}

// polled lets the guest's end of a reserved channel look at its rings: it polls, so
// that it sees whatever the host's end does without a doorbell. Between two changes
// there is nothing to see, and a world whose guests look all the same would never
// come to rest.
func (e *packetEnd) polled() {
	if guest := e.d.ends[1]; e.d.reserved && e.side == hostSide && guest != nil && !e.d.w.blind {
		guest.wake()
	}
}

// block waits for space.
func (e *packetEnd) block(need int) {
	switch p := e.d.policy.pending; {
	case p < 0:
		need = e.out.DataBytes() + p
	case p > need && p < e.out.DataBytes()-8:
		need = p
	}
	ready, err := e.out.SetPending(need)
	if err != nil {
		e.broke(err)
		return
	}
	e.writeWait = !ready
}

// size is the number of bytes of the n-th packet.
func (e *packetEnd) size(n uint64) int { return int(mixKey(e.key(e.side), n) % (maxPacketBytes + 1)) }

// key is that of what from sends.
func (e *packetEnd) key(from side) uint64 {
	return mixKey(e.d.w.o.Seed, uint64(e.d.m.number)<<32|uint64(e.d.number)<<24|e.life<<2|uint64(from))
}

// receive takes packets, a batch, and frees their space.
func (e *packetEnd) receive() {
	w, d := e.d.w, e.d
	if d.policy.masked {
		e.in.Mask()
	}
	b := w.apps.buf[:maxChunk]
	empty := false
	for range d.policy.batch {
		h, n, err := e.in.Next(b)
		if errors.Is(err, ringbuffer.ErrEmpty) {
			empty = true
			break
		}
		if err != nil {
			e.broke(err)
			return
		}
		e.check(h, b[:n])
	}
	if e.in.Commit() {
		e.signal()
	}
	e.polled()
	if !empty {
		return
	}
	if d.policy.masked {
		e.in.Unmask()
	}
	more, err := e.in.Readable()
	if err != nil {
		e.broke(err)
		return
	}
	e.readWait = !more
}

func (e *packetEnd) check(h ringbuffer.Header, b []byte) {
	w := e.d.w
	key, peer := e.key(e.side.other()), *e
	peer.side = e.side.other()
	want := peer.size(e.got)
	if e.d.m.attacked() {
		e.got++
		return
	}
	switch {
	case h.ID != e.got+1:
		w.fail(Prefix, "guest%d device %d: packet %d came, %d was due", e.d.m.number, e.d.number, h.ID, e.got+1)
	case len(b) != (want+7)&^7 || mismatch(key, e.got*maxPacketBytes, b[:want]) >= 0:
		w.fail(Prefix, "guest%d device %d: packet %d is not what was sent", e.d.m.number, e.d.number, h.ID)
	default:
		w.hit(Prefix)
		w.hit(Len)
	}
	e.got++
}

func (e *packetEnd) broke(err error) {
	if !e.d.m.attacked() {
		e.d.w.fail(Prefix, "guest%d device %d: the ring of the %v broke: %v", e.d.m.number, e.d.number, e.side, err)
	}
	e.broken, e.readWait, e.writeWait = true, true, true
}

// devices of a machine: what its applications could do with them.
func (m *machine) enableDevices() {
	w := m.w
	for _, d := range m.devices {
		n := uint64(d.number)
		if d.offered == nil && !w.resting && d.mayPublish() {
			w.add(Step{Kind: App, Op: opPublish, Guest: m.number, Arg: n}, rareWeight)
		}
		if d.driver == nil && d.seen != nil && !m.frozen && m.connected && !m.closing && !w.resting {
			weight := uint16(lowWeight)
			if d.refused { // it is still closing, or gone
				weight = rareWeight
			}
			w.add(Step{Kind: App, Op: opOpen, Guest: m.number, Arg: n}, weight)
		}
		for i, e := range d.ends {
			if e == nil || i == 1 && m.frozen {
				continue
			}
			if e.canSend() {
				w.add(Step{Kind: App, Op: opHostSend + uint8(i), Guest: m.number, Arg: n}, normalWeight)
			}
			if !e.readWait && !e.broken {
				w.add(Step{Kind: App, Op: opHostReceive + uint8(i), Guest: m.number, Arg: n}, normalWeight)
			}
		}
		if g := d.driver; g != nil && g.end != nil && !g.end.dead && !g.closed && !m.frozen {
			if w.resting {
				if d.quiet() || m.attacked() {
					w.add(Step{Kind: App, Op: opCloseChannel, Guest: m.number, Arg: n}, normalWeight)
				}
				continue
			}
			w.add(Step{Kind: App, Op: opCloseChannel, Guest: m.number, Arg: n}, rareWeight)
			if m.version >= vmbus.Win10RS3 {
				w.add(Step{Kind: App, Op: opModify, Guest: m.number, Arg: n}, rareWeight)
			}
		}
	}
}

// mayPublish reports whether a sub-channel has its primary.
func (d *device) mayPublish() bool {
	if d.offer.SubChannel == 0 {
		return true
	}
	for _, o := range d.m.devices {
		if o.offer.SubChannel == 0 && o.offer.Key.Instance == d.offer.Instance {
			return o.offered != nil
		}
	}
	return false
}

// quiet reports whether both ends are done: everything sent has been received.
func (d *device) quiet() bool {
	host, guest := d.ends[0], d.ends[1]
	if host == nil || guest == nil || host.broken || guest.broken {
		return true
	}
	return host.sent == deviceBudget && guest.sent == deviceBudget && host.got == guest.sent && guest.got == host.sent
}

// doDevice does a step of a device.
func (m *machine) doDevice(s Step) {
	w := m.w
	at := slices.IndexFunc(m.devices, func(d *device) bool { return uint64(d.number) == s.Arg })
	if at < 0 {
		return
	}
	d := m.devices[at]
	w.actor = guestSide
	switch s.Op {
	case opPublish:
		w.actor = hostSide
		if d.offered == nil {
			d.publish()
		}
	case opOpen:
		if d.seen != nil && d.driver == nil {
			d.driver = &driver{d: d, offer: *d.seen}
			rings := live.RingOptions{ToHostPages: m.pages, ToGuestPages: m.pages, LowLatency: d.policy.low}
			if d.reserved { // the answers come where all messages come, or where no other does
				rings.Reserved = &endpoint.ReservedTarget{VP: uint32(d.number) % vps, SINT: endpoint.VMBusSINT}
			}
			m.guest.OpenOffer(*d.seen, rings, d.driver)
		}
	case opHostSend, opHostReceive:
		w.actor = hostSide
		d.use(d.ends[0], s.Op == opHostSend)
	case opSend, opReceive:
		d.use(d.ends[1], s.Op == opSend)
	case opCloseChannel:
		if g := d.driver; g != nil && g.end != nil && !g.closed {
			g.closed = true
			d.lose("the guest closed it")
			d.drop(1, g.end)
			g.end = nil
			m.guest.CloseChannel(g.offer.Channel, g)
			d.driver = nil
		}
	case opModify:
		if g := d.driver; g != nil && g.end != nil {
			g.moves++
			m.guest.ModifyChannel(g.offer.Channel, uint32(w.clock.now/tick%vps), func(err error) {
				g.moves--
				w.hit(LiveCalls)
				w.note("guest%d device %d: modified: %v", m.number, d.number, err)
			})
		}
	}
}

func (d *device) use(e *packetEnd, send bool) {
	switch {
	case e == nil || e.dead || e.broken:
	case send:
		e.send()
	default:
		e.receive()
	}
}

// sawOffer is the guest learning of an offer of a device.
func (m *machine) sawOffer(o vmbus.OfferChannel) {
	for _, d := range m.devices {
		if d.offer.Interface == o.Interface && d.offer.Instance == o.Instance && d.offer.SubChannel == o.SubChannel {
			d.seen = &o
			return
		}
	}
}

// checkLiveness looks at a device when everything is at rest: its channel has been
// closed, unless an end waits for what the other should have sent.
func (d *device) checkLiveness() {
	g := d.driver
	if g == nil || d.m.attacked() {
		return
	}
	host, guest := d.ends[0], d.ends[1]
	if host == nil || guest == nil {
		d.w.fail(LiveCalls, "guest%d device %d: opening or closing has not ended", d.m.number, d.number)
		return
	}
	for _, e := range []*packetEnd{host, guest} {
		if e.writeWait {
			d.w.fail(LiveWriter, "guest%d device %d: the %v waits for space; %d packets are sent", d.m.number, d.number, e.side, e.sent)
		}
	}
	d.w.fail(LiveReader, "guest%d device %d: of %d packets %d have reached the guest, of %d packets %d the host",
		d.m.number, d.number, host.sent, guest.got, guest.sent, host.got)
}
