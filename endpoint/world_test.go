package endpoint

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/cockroachdb/datadriven"
	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A world is one host core and one guest core joined by two message queues, and
// a driver whose devices answer at once or, with "device manual", on command.
// Everything that happens is one line of trace.
type world struct {
	host   *Host
	guest  *Guest
	trace  strings.Builder
	manual bool
	toHost []Posting
	toMe   [][]byte // host to guest
	asked  []Action // device requests waiting for "device ..."
	dialed []SocketRequested
}

func newWorld() *world {
	return &world{host: NewHost(HostOptions{}), guest: NewGuest(GuestOptions{})}
}

func (w *world) log(format string, args ...any) { fmt.Fprintf(&w.trace, format+"\n", args...) }

// step moves one thing: an action, a message posted, or a message received.
func (w *world) step() bool {
	if a, ok := w.host.Next(); ok {
		w.hostAction(a)
		return true
	}
	if a, ok := w.guest.Next(); ok {
		w.guestAction(a)
		return true
	}
	if m, ok := w.host.NextMessage(); ok {
		b := vmbus.Append(nil, m.Message)
		w.logMessage("host>guest", m.Message, "")
		w.host.MessageSent()
		w.toMe = append(w.toMe, b)
		return true
	}
	if m, ok := w.guest.NextMessage(); ok {
		w.logMessage("guest>host", m.Message, fmt.Sprintf(" port=%d", m.Port))
		w.guest.MessageSent()
		w.toHost = append(w.toHost, m)
		return true
	}
	if len(w.toMe) > 0 {
		b := w.toMe[0]
		w.toMe = w.toMe[1:]
		w.dropped("guest", w.guest.Receive(b))
		return true
	}
	if len(w.toHost) > 0 && w.host.WantsMessage() {
		m := w.toHost[0]
		w.toHost = w.toHost[1:]
		w.dropped("host", w.host.Receive(m.Port, m.Payload))
		return true
	}
	return false
}

func (w *world) dropped(side string, err error) {
	if err != nil {
		w.log("%s drops: %v", side, err)
	}
}

func (w *world) run() {
	for n := 0; w.step(); n++ {
		if n > 100_000 {
			panic("the world does not come to rest") // L-NO-LIVELOCK
		}
	}
}

// logMessage prints the fields that are not zero.
func (w *world) logMessage(dir string, m vmbus.Message, more string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v%s", dir, m.Type(), more)
	for _, f := range vmbus.Fields(m) {
		if s := render(f.Value); s != "" {
			fmt.Fprintf(&b, " %s=%s", f.Name, s)
		}
	}
	w.log("%s", b.String())
}

func render(v any) string {
	switch v := v.(type) {
	case vmbus.GUID:
		if v == (vmbus.GUID{}) {
			return ""
		}
		return short(v)
	case vmbus.UserData:
		if v == (vmbus.UserData{}) {
			return ""
		}
		return strings.TrimRight(hex.EncodeToString(v[:]), "0")
	case vmbus.Version, vmbus.OfferFlags, vmbus.GPADLID:
		return fmt.Sprint(v)
	case vmbus.Features:
		return fmt.Sprintf("%#x", uint32(v))
	case vmbus.ChannelID, uint16, uint8:
		if s := fmt.Sprint(v); s != "0" {
			return s
		}
		return ""
	}
	if s := fmt.Sprintf("%#x", v); s != "0x0" {
		return s
	}
	return ""
}

// short names a GUID: a port, or its first group.
func short(g vmbus.GUID) string {
	s := g.UUID().String()
	if strings.HasSuffix(s, "-facb-11e6-bd58-64006a7986d3") {
		return "port:" + strings.TrimLeft(s[:8], "0")
	}
	return s[:8]
}

func guid(s string) vmbus.GUID {
	if port, ok := strings.CutPrefix(s, "port:"); ok {
		s = fmt.Sprintf("%08s-facb-11e6-bd58-64006a7986d3", port)
	} else if len(s) == 8 {
		s += "-0000-0000-0000-000000000000"
	}
	return vmbus.GUIDFromUUID(uuid.MustParse(s))
}

func (w *world) hostAction(a Action) {
	switch a := a.(type) {
	case SetupConnection:
		w.log("host maps version=%v vp=%d", a.Negotiated.Version, a.TargetVP)
	case SocketRequested:
		w.log("host is dialed service=%s endpoint=%s", short(a.Service), short(a.Endpoint))
		w.dialed = append(w.dialed, a)
		return
	case OpenDevice:
		w.log("device %d: open channel=%d rings=%d+%d vp=%d", a.Offer, a.Request.Channel, len(a.Request.ToHost), len(a.Request.ToGuest), a.Request.TargetVP)
	case AddGPADL:
		w.log("device %d: pages gpadl=%#x ranges=%d", a.Offer, uint32(a.GPADL), len(a.Ranges))
	case DropGPADL:
		w.log("device %d: let go gpadl=%#x", a.Offer, uint32(a.GPADL))
	case CloseDevice:
		w.log("device %d: close", a.Offer)
	case RetargetDevice:
		w.log("device %d: target vp=%d", a.Offer, a.TargetVP)
	case OfferGone:
		w.log("device %d: offer gone", a.Offer)
	case GuestGone:
		w.log("host: the guest is gone")
	case ResetFinished:
		w.log("host: reset finished")
	case SendDirect:
		w.logMessage(fmt.Sprintf("host>guest (vp %d, sint %d)", a.VP, a.SINT), a.Message, "")
	}
	if w.manual {
		w.asked = append(w.asked, a)
		return
	}
	w.answer(a, vmbus.StatusSuccess)
}

// answer is the device's answer to a.
func (w *world) answer(a Action, status uint32) {
	switch a := a.(type) {
	case SetupConnection:
		w.host.SetupDone(status == 0)
	case ResetConnection:
		w.host.ResetDone()
	case OpenDevice:
		w.host.OpenDone(a.Token, status)
	case CloseDevice:
		w.host.CloseDone(a.Token)
	case AddGPADL:
		w.host.GPADLDone(a.Token, status)
	case DropGPADL:
		w.host.TeardownDone(a.Token)
	case RetargetDevice:
		w.host.ModifyDone(a.Token, status == 0)
	}
}

func (w *world) guestAction(a Action) {
	switch a := a.(type) {
	case Connected:
		w.log("guest: connected version=%v features=%#x", a.Negotiated.Version, uint32(a.Negotiated.Features))
	case ConnectFailed:
		w.log("guest: %v", a.Err)
	case OfferArrived:
		w.log("guest: offer channel=%d", a.Offer.Channel)
	case OfferRescinded:
		w.log("guest: channel %d is rescinded", a.Channel)
		_ = w.guest.Close(a.Channel) // what a driver does; an unopened channel has nothing to close
	case ChannelOpened:
		w.log("guest: channel %d is open", a.Channel)
	case OpenFailed:
		w.log("guest: channel %d did not open: %v", a.Channel, a.Err)
	case RingFree:
		w.log("guest: the pages of channel %d are free", a.Channel)
	case ChannelReleased:
		w.log("guest: channel %d is released", a.Channel)
	case SocketRefused:
		w.log("guest: refused service=%s endpoint=%s", short(a.Service), short(a.Endpoint))
	case Disconnected:
		w.log("guest: disconnected error=%v", a.Err)
	}
}

// usage is empty when neither side holds anything.
func (w *world) usage() string {
	_, ids, gpadls, ops, reqs := w.host.Usage()
	gids, grings := w.guest.Usage()
	return fmt.Sprintf("host: ids=%d gpadls=%d operations=%d requests=%d; guest: ids=%d gpadls=%d",
		ids, gpadls, ops, reqs, gids, grings)
}

// open opens channel ch over pages ring pages each way.
func (w *world) open(ch vmbus.ChannelID, pages int) error {
	pfns := make([]uint64, 2*pages)
	for i := range pfns {
		pfns[i] = uint64(0x1000 + 7*i)
	}
	return w.guest.Open(ch, OpenParams{PFNs: pfns, HostOffset: uint32(pages)})
}

// do carries out one directive of a scenario file.
func (w *world) do(d *datadriven.TestData, arg func(string, string) string) error {
	num := func(key, def string) uint64 {
		var n uint64
		_, err := fmt.Sscan(arg(key, def), &n)
		if err != nil {
			panic(fmt.Sprintf("%s: %s: %v", d.Pos, key, err))
		}
		return n
	}
	ch := vmbus.ChannelID(num("channel", "0"))
	switch d.Cmd {
	case "publish":
		o := offers.Offer{Key: offers.Key{Interface: guid(arg("interface", "00000001")), Instance: guid(arg("instance", "00000002"))}}
		id, err := w.host.Publish(o)
		if err == nil {
			w.log("host: offer %d", id)
		}
		return err
	case "publish-socket":
		_, err := w.host.Publish(SocketOffer(guid(arg("service", "")), guid(arg("endpoint", "")), true, vmbus.Iron))
		return err
	case "revoke":
		return w.host.Revoke(OfferID(num("offer", "1")))
	case "connect":
		return w.guest.Connect()
	case "dial":
		return w.guest.RequestSocket(guid(arg("service", "")), guid(arg("endpoint", "")))
	case "accept", "refuse":
		r := w.dialed[0]
		w.dialed = w.dialed[1:]
		if d.Cmd == "refuse" {
			w.host.RefuseSocket(r.Endpoint, r.Service)
			return nil
		}
		_, err := w.host.AcceptSocket(r.Endpoint, r.Service)
		return err
	case "open":
		return w.open(ch, int(num("pages", fmt.Sprint(channel.DefaultRingPages))))
	case "close":
		return w.guest.Close(ch)
	case "unload":
		return w.guest.Unload()
	case "reset":
		w.host.Reset()
	case "device":
		w.manual = arg("answer", "auto") == "manual"
	case "answer": // the device answers its oldest request
		a := w.asked[0]
		w.asked = w.asked[1:]
		w.answer(a, uint32(num("status", "0")))
	case "post": // raw bytes of a hostile guest
		return w.raw(d.Input, func(b []byte) error { return w.host.Receive(uint32(num("port", "1")), b) })
	case "deliver": // raw bytes of a hostile host
		return w.raw(d.Input, w.guest.Receive)
	case "usage":
		w.log("%s", w.usage())
	case "run":
	default:
		return fmt.Errorf("unknown directive %s", d.Cmd)
	}
	return nil
}

// raw hands each line of hexadecimal input, spaces and comments aside, to
// receive.
func (w *world) raw(input string, receive func([]byte) error) error {
	for line := range strings.Lines(input) {
		line, _, _ = strings.Cut(line, "#")
		b, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		if err != nil {
			return err
		}
		if err := receive(b); err != nil {
			w.log("drops: %v", err)
		}
		w.run()
	}
	return nil
}
