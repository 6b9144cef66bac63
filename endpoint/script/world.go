package script

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/invariant"
	"github.com/hvlab/hvlab/vmbus"
)

// maxSteps is how many steps one directive may cause. The largest honest run
// publishes 2047 offers; a world that is still busy then never comes to rest
// (faults.md 3, L-NO-LIVELOCK).
const maxSteps = 100_000

// A World is one host core and one guest core joined by two message queues, and
// a driver whose devices answer at once or, with Manual, on command. Everything
// that happens is one line of trace.
type World struct {
	Host  *endpoint.Host
	Guest *endpoint.Guest

	BeforeStep func(*World) // if set, called before every step
	Manual     bool         // devices answer only when told to
	VPs        uint32       // the guest's virtual processors; 0 is any number
	Busy       bool         // the guest's message slot is occupied
	Lossy      bool         // the slot of a direct message is always busy
	Mute       bool         // there is no host core: a scenario writes the host's messages itself
	Raw        bool         // there is no guest core: a scenario writes the guest's messages itself
	Trusted    bool         // the guest's messages reach the host on a trusted path

	trace   strings.Builder
	rules   *rules
	starved func() // if set, the next request of the host finds no memory: see Inject
	toHost  []arrival
	toGuest [][]byte
	asked   []endpoint.Action // device requests waiting for an answer
	dialed  []endpoint.SocketRequested

	hostOptions  endpoint.HostOptions // what the cores were made with
	guestOptions endpoint.GuestOptions
}

// An arrival is a message of the guest that the host has not read yet.
type arrival struct {
	from    endpoint.Source
	payload []byte
}

// arrive hands the host a message, or lets it wait behind the others: the host
// reads none while one of its own cannot be delivered (vmbus-control.md 5.5).
func (w *World) arrive(from endpoint.Source, payload []byte) {
	if len(w.toHost) > 0 || !w.Host.WantsMessage() {
		w.toHost = append(w.toHost, arrival{from, payload})
		return
	}
	w.dropped("host", w.Host.ReceiveFrom(from, payload))
}

// NewWorld returns a world of two cores without options.
func NewWorld() *World {
	return NewWorldOf(endpoint.HostOptions{}, endpoint.GuestOptions{})
}

// NewWorldOf returns a world of two cores.
func NewWorldOf(host endpoint.HostOptions, guest endpoint.GuestOptions) *World {
	r := &rules{host: invariant.NewHost(host), guest: invariant.NewGuest(guest)}
	host.Observe, guest.Observe = r.host.Observe, r.guest.Observe
	return &World{
		Host: endpoint.NewHost(host), Guest: endpoint.NewGuest(guest), rules: r,
		hostOptions: host, guestOptions: guest,
	}
}

// rules are the promises both cores are held to.
type rules struct {
	host  *invariant.Host
	guest *invariant.Guest
}

// Broken returns the first promise of package invariant that a core has broken, or
// nil. With atRest it also looks for answers that are still owed: when nothing
// moves any more. A world that was not made by this package knows no rules.
func (w *World) Broken(atRest bool) error {
	if w.rules == nil {
		return nil
	}
	if err := w.rules.guest.Err(); err != nil {
		return err
	}
	if atRest && w.Guest.State() == endpoint.GuestConnected {
		if err := w.rules.guest.AtRest(); err != nil {
			return err
		}
	}
	if atRest && !w.Busy {
		return w.rules.host.AtRest()
	}
	return w.rules.host.Err()
}

// Trace returns what has happened since the last directive.
func (w *World) Trace() string { return w.trace.String() }

// Forget empties the trace, and the list of socket requests for "accept" and
// "refuse": for long runs that do without them.
func (w *World) Forget() {
	w.trace.Reset()
	w.dialed = nil
}

// Asked returns the requests of the host that a manual device has not answered.
func (w *World) Asked() []endpoint.Action { return w.asked }

// Dialed counts the socket requests that wait for "accept" or "refuse".
func (w *World) Dialed() int { return len(w.dialed) }

func (w *World) log(format string, args ...any) { fmt.Fprintf(&w.trace, format+"\n", args...) }

// Step moves one thing: an action, a message posted, or a message received. It
// reports false when there is nothing to move.
func (w *World) Step() bool {
	if w.BeforeStep != nil {
		w.BeforeStep(w)
	}
	if a, ok := w.Host.Next(); ok {
		w.hostAction(a)
		return true
	}
	if a, ok := w.Guest.Next(); ok {
		w.guestAction(a)
		return true
	}
	return w.post() || w.receive()
}

// post moves one message out of a core.
func (w *World) post() bool {
	if m, ok := w.Host.NextMessage(); ok && !w.Busy {
		b := m.Payload()
		vp := ""
		if m.VP != 0 {
			vp = fmt.Sprintf(" (vp %d)", m.VP)
		}
		if n := len(b); n != vmbus.Size(m.Message) {
			vp += fmt.Sprintf(" (%d bytes)", n)
		}
		w.logMessage("host>guest"+vp, m.Message, "")
		w.Host.MessageSent()
		if !w.Raw {
			w.toGuest = append(w.toGuest, b)
		}
		return true
	}
	if m, ok := w.Guest.NextMessage(); ok {
		w.logMessage("guest>host", m.Message, fmt.Sprintf(" port=%d", m.Port))
		if !w.Mute && w.Host.Refuses(m.Payload) {
			w.log("the hypervisor refuses the post")
			w.Guest.PostFailed(errRefusedPost)
			return true
		}
		w.Guest.MessageSent()
		if !w.Mute {
			w.toHost = append(w.toHost, arrival{endpoint.Source{Port: m.Port, Trusted: w.Trusted}, m.Payload})
		}
		return true
	}
	return false
}

// receive moves one message into a core.
func (w *World) receive() bool {
	if len(w.toGuest) > 0 {
		b := w.toGuest[0]
		w.toGuest = w.toGuest[1:]
		w.dropped("guest", w.Guest.Receive(b))
		return true
	}
	if len(w.toHost) > 0 && w.Host.WantsMessage() {
		m := w.toHost[0]
		w.toHost = w.toHost[1:]
		w.dropped("host", w.Host.ReceiveFrom(m.from, m.payload))
		return true
	}
	return false
}

// errRefusedPost is what a guest's kernel makes of INVALID_HYPERCALL_INPUT
// (vmbus-control.md 9.6).
var errRefusedPost = errors.New("HV_STATUS_INVALID_HYPERCALL_INPUT")

func (w *World) dropped(side string, err error) {
	if err != nil {
		w.log("%s drops: %v", side, err)
	}
}

// Run steps until nothing moves. The error says that this does not happen.
func (w *World) Run() error {
	for range maxSteps {
		if !w.Step() {
			return nil
		}
	}
	return fmt.Errorf("the world does not come to rest within %d steps", maxSteps)
}

func (w *World) hostAction(a endpoint.Action) {
	w.logHostAction(a)
	switch a := a.(type) {
	case endpoint.SocketRequested:
		w.dialed = append(w.dialed, a)
		return
	case endpoint.SendDirect:
		if _, version := a.Message.(*vmbus.VersionResponse); !version && !w.Raw && !w.Lossy { // that SINT is nobody's
			w.toGuest = append(w.toGuest, vmbus.Append(nil, a.Message))
		}
	}
	switch {
	case !w.Manual:
		w.Answer(a, w.verdict(a))
	case wantsAnswer(a):
		w.asked = append(w.asked, a)
	}
}

// wantsAnswer reports whether Answer has something to say to a.
func wantsAnswer(a endpoint.Action) bool {
	switch a.(type) {
	case endpoint.SetupConnection, endpoint.ResetConnection, endpoint.OpenDevice, endpoint.CloseDevice,
		endpoint.AddGPADL, endpoint.DropGPADL, endpoint.RemapMonitors, endpoint.RetargetDevice:
		return true
	}
	return false
}

// AnswerOldest lets a manual device answer its oldest request as it would by
// itself. It reports false when there is none.
func (w *World) AnswerOldest() bool {
	if len(w.asked) == 0 {
		return false
	}
	a := w.asked[0]
	w.asked = w.asked[1:]
	w.Answer(a, w.verdict(a))
	return true
}

// verdict is what a willing device answers: only a VP that does not exist makes
// it fail (vmbus-control.md 7.2).
func (w *World) verdict(a endpoint.Action) uint32 {
	exists := func(vp uint32) bool { return w.VPs == 0 || vp < w.VPs }
	switch a := a.(type) {
	case endpoint.OpenDevice:
		if !a.Request.NoInterrupt && !exists(a.Request.TargetVP) {
			return vmbus.StatusFailure
		}
	case endpoint.RetargetDevice:
		if !exists(a.TargetVP) {
			return vmbus.StatusFailure
		}
	case endpoint.SetupConnection:
		if !exists(a.TargetVP) {
			return vmbus.StatusFailure
		}
	}
	return vmbus.StatusSuccess
}

// Answer is the device's answer to a; actions that want none (wantsAnswer) are ignored.
func (w *World) Answer(a endpoint.Action, status uint32) {
	if w.starve(a) {
		status = vmbus.StatusFailure
	}
	switch a := a.(type) {
	case endpoint.SetupConnection:
		w.Host.SetupDone(status == 0)
	case endpoint.ResetConnection:
		w.Host.ResetDone()
	case endpoint.OpenDevice:
		w.Host.OpenDone(a.Token, status)
	case endpoint.CloseDevice:
		w.Host.CloseDone(a.Token)
	case endpoint.AddGPADL:
		w.Host.GPADLDone(a.Token, status)
	case endpoint.DropGPADL:
		w.Host.TeardownDone(a.Token)
	case endpoint.RemapMonitors:
		w.Host.RemapDone(a.Token, uint8(status))
	case endpoint.RetargetDevice:
		w.Host.ModifyDone(a.Token, status == 0)
	}
}

func (w *World) guestAction(a endpoint.Action) {
	w.logGuestAction(a)
	if a, ok := a.(endpoint.OfferRescinded); ok {
		_ = w.Guest.Close(a.Channel) // what a driver does; an unopened channel has nothing to close
	}
}

// usage is empty when neither side holds anything.
func (w *World) usage() string {
	_, ids, gpadls, ops, reqs := w.Host.Usage()
	gids, grings := w.Guest.Usage()
	return fmt.Sprintf("host: ids=%d gpadls=%d operations=%d requests=%d; guest: ids=%d gpadls=%d",
		ids, gpadls, ops, reqs, gids, grings)
}

// Open opens channel ch over pages ring pages each way.
func (w *World) Open(ch vmbus.ChannelID, pages int) error {
	return w.OpenWith(ch, pages, endpoint.OpenParams{})
}

// OpenWith is Open with parameters; the ring's pages are made up.
func (w *World) OpenWith(ch vmbus.ChannelID, pages int, p endpoint.OpenParams) error {
	pfns := make([]uint64, 2*pages)
	for i := range pfns {
		pfns[i] = uint64(0x1000 + 7*i)
	}
	p.PFNs, p.HostOffset = pfns, uint32(pages)
	return w.Guest.Open(ch, p)
}
