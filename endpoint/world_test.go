package endpoint

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/vmbus"
)

// A world is one host core and one guest core joined by two message queues, and
// a driver whose devices answer at once or, with "device manual", on command.
// Everything that happens is one line of trace.
type world struct {
	host      *Host
	guest     *Guest
	trace     strings.Builder
	manual    bool
	vps       uint32       // the guest's virtual processors; 0 is any number
	restoring func(*world) // if set, called before every step
	busy      bool         // the guest's message slot is occupied
	lossy     bool         // the slot of a direct message is always busy
	mute      bool         // there is no host core: a scenario writes the host's messages itself
	raw       bool         // there is no guest core: a scenario writes the guest's messages itself
	trusted   bool         // the guest's messages reach the host on a trusted path
	toHost    []Posting
	toMe      [][]byte // host to guest
	asked     []Action // device requests waiting for "device ..."
	dialed    []SocketRequested
}

func newWorld() *world {
	return &world{host: NewHost(HostOptions{}), guest: NewGuest(GuestOptions{})}
}

func (w *world) log(format string, args ...any) { fmt.Fprintf(&w.trace, format+"\n", args...) }

// step moves one thing: an action, a message posted, or a message received.
func (w *world) step() bool {
	if w.restoring != nil {
		w.restoring(w)
	}
	if a, ok := w.host.Next(); ok {
		w.hostAction(a)
		return true
	}
	if a, ok := w.guest.Next(); ok {
		w.guestAction(a)
		return true
	}
	if m, ok := w.host.NextMessage(); ok && !w.busy {
		b := m.Payload()
		vp := ""
		if m.VP != 0 {
			vp = fmt.Sprintf(" (vp %d)", m.VP)
		}
		if n := len(b); n != vmbus.Size(m.Message) {
			vp += fmt.Sprintf(" (%d bytes)", n)
		}
		w.logMessage("host>guest"+vp, m.Message, "")
		w.host.MessageSent()
		if !w.raw {
			w.toMe = append(w.toMe, b)
		}
		return true
	}
	if m, ok := w.guest.NextMessage(); ok {
		w.logMessage("guest>host", m.Message, fmt.Sprintf(" port=%d", m.Port))
		w.guest.MessageSent()
		if !w.mute {
			w.toHost = append(w.toHost, m)
		}
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
		w.dropped("host", w.host.ReceiveFrom(Source{m.Port, w.trusted}, m.Payload))
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
		w.log("host maps version=%v vp=%d%s", a.Negotiated.Version, a.TargetVP, pages(a.InterruptPage, a.ParentToChild, a.ChildToParent))
	case RemapMonitors:
		w.log("host remaps%s", pages(0, a.ParentToChild, a.ChildToParent))
	case SocketRequested:
		w.log("host is dialed service=%s endpoint=%s", short(a.Service), short(a.Endpoint))
		w.dialed = append(w.dialed, a)
		return
	case OpenDevice:
		w.logOpen(a)
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
		if _, version := a.Message.(*vmbus.VersionResponse); !version && !w.raw && !w.lossy { // that SINT is nobody's
			w.toMe = append(w.toMe, vmbus.Append(nil, a.Message))
		}
	}
	if w.manual {
		w.asked = append(w.asked, a)
		return
	}
	w.answer(a, w.verdict(a))
}

// verdict is what a willing device answers: only a VP that does not exist makes
// it fail (vmbus-control.md 7.2).
func (w *world) verdict(a Action) uint32 {
	exists := func(vp uint32) bool { return w.vps == 0 || vp < w.vps }
	switch a := a.(type) {
	case OpenDevice:
		if !a.Request.NoInterrupt && !exists(a.Request.TargetVP) {
			return vmbus.StatusFailure
		}
	case RetargetDevice:
		if !exists(a.TargetVP) {
			return vmbus.StatusFailure
		}
	case SetupConnection:
		if !exists(a.TargetVP) {
			return vmbus.StatusFailure
		}
	}
	return vmbus.StatusSuccess
}

// pages lists the pages that are not zero.
func pages(interrupt, parentToChild, childToParent uint64) string {
	s := ""
	if interrupt != 0 {
		s += fmt.Sprintf(" interrupts=%#x", interrupt)
	}
	if parentToChild != 0 || childToParent != 0 {
		s += fmt.Sprintf(" monitors=%#x,%#x", parentToChild, childToParent)
	}
	return s
}

func (w *world) logOpen(a OpenDevice) {
	r := a.Request
	vp := fmt.Sprintf("vp=%d", r.TargetVP)
	if r.NoInterrupt {
		vp = "polled"
	}
	if r.ConnectionID != EventConnection(r.Channel) || r.EventFlag != uint16(r.Channel) {
		vp += fmt.Sprintf(" connection=%#x flag=%d", r.ConnectionID, r.EventFlag)
	}
	if r.MonitorID != vmbus.NoMonitor {
		vp += fmt.Sprintf(" monitored=%d latency=%d", r.MonitorID, r.MonitorLatency)
	}
	if r.Redirected {
		vp += " redirected"
	}
	w.log("device %d: open channel=%d rings=%d+%d %s", a.Offer, r.Channel, len(r.ToHost), len(r.ToGuest), vp)
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
	case RemapMonitors:
		w.host.RemapDone(a.Token, uint8(status))
	case RetargetDevice:
		w.host.ModifyDone(a.Token, status == 0)
	}
}

func (w *world) guestAction(a Action) {
	switch a := a.(type) {
	case Connected:
		w.log("guest: connected version=%v features=%#x%s", a.Negotiated.Version, uint32(a.Negotiated.Features), pages(0, a.ParentToChild, a.ChildToParent))
	case ConnectionModified:
		w.log("guest: connection modified state=%d", a.State)
	case Paused:
		w.log("guest: the host is silent")
	case ConnectFailed:
		w.log("guest: %v", a.Err)
	case OfferArrived:
		w.log("guest: offer channel=%d", a.Offer.Channel)
	case OfferRescinded:
		w.log("guest: channel %d is rescinded", a.Channel)
		_ = w.guest.Close(a.Channel) // what a driver does; an unopened channel has nothing to close
	case ChannelOpened:
		w.log("guest: channel %d is open", a.Channel)
	case ChannelModified:
		if a.Err != nil {
			w.log("guest: channel %d still interrupts vp %d: %v", a.Channel, a.VP, a.Err)
			return
		}
		w.log("guest: channel %d interrupts vp %d, drains the flags of vp %d once more", a.Channel, a.VP, a.OldVP)
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
	return w.openWith(ch, pages, OpenParams{})
}

func (w *world) openWith(ch vmbus.ChannelID, pages int, p OpenParams) error {
	pfns := make([]uint64, 2*pages)
	for i := range pfns {
		pfns[i] = uint64(0x1000 + 7*i)
	}
	p.PFNs, p.HostOffset = pfns, uint32(pages)
	return w.guest.Open(ch, p)
}
