package endpoint

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// An observed message is one line of a file in testdata/observed, whose first
// line tells what was observed. internal/kerneltest records them.
type observedMessage struct {
	Dir string `json:"dir"`
	Raw string `json:"raw"`

	line  int
	bytes []byte
	parse vmbus.Message
	tail  []byte
}

// readObserved reads a conversation of a real kernel with our host.
func readObserved(t *testing.T, file string) []observedMessage {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	lines := bufio.NewScanner(bytes.NewReader(text))
	var list []observedMessage
	for n := 1; lines.Scan(); n++ {
		if n == 1 {
			continue
		}
		m := observedMessage{line: n}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &m), "line %d", n)
		m.bytes, err = hex.DecodeString(m.Raw)
		require.NoError(t, err)
		from := vmbus.GuestToHost
		if m.Dir == vmbus.HostToGuest.String() {
			from = vmbus.HostToGuest
		}
		// The observed kernels speak 5.3 at most, where no feature changes a message.
		m.parse, m.tail, err = vmbus.ParseFrom(from, m.bytes, vmbus.Negotiated{Version: vmbus.Iron})
		require.NoError(t, err, "line %d", n)
		list = append(list, m)
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, list)
	return list
}

func (m *observedMessage) fromGuest() bool { return m.Dir == vmbus.GuestToHost.String() }

func observedFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../testdata/observed/linux-*.jsonl")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

// TestObservedHost: given what a real kernel sent, and what its users wanted,
// our host core sends byte for byte what it sent then.
func TestObservedHost(t *testing.T) {
	for _, file := range observedFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			messages := readObserved(t, file)
			r := newHostReplay(t, messages)
			for i := range messages {
				m := &messages[i]
				if m.fromGuest() {
					_, surplus := r.host.NextMessage()
					require.False(t, surplus, "line %d: the guest speaks, but our host has more to say", m.line)
					require.NoError(t, r.host.Receive(portOf(m), m.bytes), "line %d", m.line)
					r.drain()
					continue
				}
				r.expect(m)
			}
			_, surplus := r.host.NextMessage()
			require.False(t, surplus, "our host has more to say at the end")
		})
	}
}

// portOf is the connection id that a guest message was posted on: contacts of
// 5.0 and later have their own (vmbus-control.md 2.3).
func portOf(m *observedMessage) uint32 {
	if c, ok := m.parse.(*vmbus.InitiateContact); ok && c.Version >= vmbus.Win10V5 {
		return MultiClientPort
	}
	return MessagePort
}

// A hostReplay is our host core, with devices that do what they did then.
type hostReplay struct {
	t       *testing.T
	host    *Host
	offers  map[vmbus.ChannelID]OfferID
	opening map[vmbus.ChannelID]Token
	asked   map[offers.Key]bool // socket requests that wait for an answer
}

// newHostReplay serves no newer version than was accepted.
func newHostReplay(t *testing.T, messages []observedMessage) *hostReplay {
	r := &hostReplay{t: t, offers: map[vmbus.ChannelID]OfferID{}, opening: map[vmbus.ChannelID]Token{}, asked: map[offers.Key]bool{}}
	var asked vmbus.Version
	for _, m := range messages {
		switch p := m.parse.(type) {
		case *vmbus.InitiateContact:
			asked = p.Version
		case *vmbus.VersionResponse:
			if p.Supported != 0 {
				r.host = NewHost(HostOptions{MaxVersion: asked})
				return r
			}
		}
	}
	require.Fail(t, "no version was accepted")
	return nil
}

// drain answers what the core asks of devices; opens wait for expect.
func (r *hostReplay) drain() {
	for {
		a, ok := r.host.Next()
		if !ok {
			return
		}
		switch a := a.(type) {
		case SetupConnection:
			r.host.SetupDone(true)
		case ResetConnection:
			r.host.ResetDone()
		case AddGPADL:
			r.host.GPADLDone(a.Token, vmbus.StatusSuccess)
		case DropGPADL:
			r.host.TeardownDone(a.Token)
		case OpenDevice:
			r.opening[a.Request.Channel] = a.Token
		case CloseDevice:
			r.host.CloseDone(a.Token)
		case SocketRequested:
			r.asked[offers.Key{Interface: a.Service, Instance: a.Endpoint}] = true
		}
	}
}

// expect makes the core send the recorded message m.
func (r *hostReplay) expect(m *observedMessage) {
	var made OfferID
	if _, ok := r.host.NextMessage(); !ok {
		made = r.wish(m)
		r.drain()
	}
	got, ok := r.host.NextMessage()
	require.True(r.t, ok, "line %d: %v was sent, and our host has nothing to say", m.line, m.parse.Type())
	require.Equal(r.t, hex.EncodeToString(m.bytes), hex.EncodeToString(got.Payload()),
		"line %d: %v was sent; our host sends %v", m.line, m.parse.Type(), got.Message.Type())
	r.host.MessageSent()
	r.drain()
	if o, ok := got.Message.(*vmbus.OfferChannel); ok {
		r.offers[o.Channel] = made
	}
}

// wish does what the host's programs or devices did to cause m.
func (r *hostReplay) wish(m *observedMessage) (made OfferID) {
	var err error
	switch p := m.parse.(type) {
	case *vmbus.OfferChannel:
		k := offers.Key{Interface: p.Interface, Instance: p.Instance}
		if r.asked[k] {
			delete(r.asked, k)
			made, err = r.host.AcceptSocket(p.Instance, p.Interface)
		} else {
			made, err = r.host.Publish(offers.Offer{Key: k, Flags: p.Flags, MMIOMegabytes: p.MMIOMegabytes, UserDefined: p.UserDefined})
		}
	case *vmbus.RescindChannelOffer:
		err = r.host.Revoke(r.offers[p.Channel])
	case *vmbus.TLConnectResult:
		r.host.RefuseSocket(p.Endpoint, p.Service)
	case *vmbus.OpenResult:
		r.host.OpenDone(r.opening[p.Channel], p.Status)
	}
	require.NoError(r.t, err, "line %d", m.line)
	return made
}

// TestObservedGuest: given what a host sent to a real kernel, and what the
// kernel's users wanted, our guest core in its Linux profile posts byte for byte
// what the kernel posted. Only the order between channels may differ, since the
// kernel works on them in several threads.
func TestObservedGuest(t *testing.T) {
	for _, file := range observedFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			r := &guestReplay{t: t, messages: readObserved(t, file)}
			for i := range r.messages {
				m := &r.messages[i]
				if !m.fromGuest() {
					require.NoError(t, r.guest.Receive(m.bytes), "line %d", m.line)
					r.drain()
					continue
				}
				r.expect(i)
			}
			require.Empty(t, r.posted, "our guest posts more than the kernel")
		})
	}
}

// A guestReplay is our guest core, with drivers that do what they did then.
type guestReplay struct {
	t        *testing.T
	messages []observedMessage
	guest    *Guest
	posted   []Posting // not compared yet
}

// drain collects what the core posts.
func (r *guestReplay) drain() {
	for {
		m, ok := r.guest.NextMessage()
		if !ok {
			break
		}
		r.posted = append(r.posted, m)
		r.guest.MessageSent()
	}
	for {
		if _, ok := r.guest.Next(); !ok {
			return
		}
	}
}

// subject is what a message is about; messages about one subject keep their order.
func subject(m vmbus.Message) string {
	switch m := m.(type) {
	case *vmbus.GPADLHeader:
		return fmt.Sprint("ring ", m.GPADL)
	case *vmbus.GPADLBody:
		return fmt.Sprint("ring ", m.GPADL)
	case *vmbus.OpenChannel:
		return fmt.Sprint("channel ", m.Channel)
	case *vmbus.CloseChannel:
		return fmt.Sprint("channel ", m.Channel)
	case *vmbus.GPADLTeardown:
		return fmt.Sprint("channel ", m.Channel)
	case *vmbus.RelIDReleased:
		return fmt.Sprint("channel ", m.Channel)
	}
	return "bus"
}

// expect makes the core post message i of the kernel.
func (r *guestReplay) expect(i int) {
	m := &r.messages[i]
	find := func() int {
		return slices.IndexFunc(r.posted, func(p Posting) bool { return subject(p.Message) == subject(m.parse) })
	}
	at := -1
	if r.guest != nil {
		at = find()
	}
	if at < 0 {
		r.wish(i)
		r.drain()
		at = find()
	}
	require.GreaterOrEqual(r.t, at, 0, "line %d: the kernel posted %v, our guest does not", m.line, m.parse.Type())
	got := r.posted[at]
	r.posted = slices.Delete(r.posted, at, at+1)
	require.Equal(r.t, hex.EncodeToString(m.bytes), hex.EncodeToString(got.Payload),
		"line %d: the kernel posted %v, our guest posts %v", m.line, m.parse.Type(), got.Message.Type())
	require.Equal(r.t, portOf(m), got.Port, "line %d", m.line)
}

// wish does what the guest's programs and drivers did to cause message i. What
// is the kernel's own choice is taken from the record: its pages (rings,
// monitor pages, interrupt page), the sizes of its rings, the target VP and the
// ids of its sockets.
func (r *guestReplay) wish(i int) {
	m := &r.messages[i]
	var err error
	switch p := m.parse.(type) {
	case *vmbus.InitiateContact:
		require.Empty(r.t, r.posted, "line %d: our guest posted more than the kernel", m.line)
		r.guest = NewGuest(r.linux(i))
		err = r.guest.Connect()
	case *vmbus.TLConnectRequest:
		err = r.guest.RequestSocket(p.Service, p.Endpoint)
	case *vmbus.TLConnectRequest2:
		err = r.guest.RequestSocket(p.Service, p.Endpoint)
	case *vmbus.GPADLHeader:
		err = r.guest.Open(p.Channel, r.openParams(i))
	case *vmbus.CloseChannel:
		err = r.guest.Close(p.Channel)
	case *vmbus.Unload:
		err = r.guest.Unload()
	}
	require.NoError(r.t, err, "line %d", m.line)
}

// linux is the profile of the kernel that makes contact with message i.
func (r *guestReplay) linux(i int) GuestOptions {
	o := GuestOptions{SkipTeardown: true, ShortSocketRequest: true}
	for _, v := range vmbus.Versions() {
		if v <= vmbus.Iron { // what 6.1 knows
			o.Versions = append([]vmbus.Version{v}, o.Versions...)
		}
	}
	for _, m := range r.messages[i:] {
		switch p := m.parse.(type) {
		case *vmbus.InitiateContact:
			o.ParentToChild, o.ChildToParent = p.ParentToChild, p.ChildToParent
			if p.Version < vmbus.Win10V5 {
				o.InterruptPage = p.TargetInfo
			}
		case *vmbus.RequestOffers:
			return o
		}
	}
	return o
}

// openParams is what the kernel opened a channel with, whose GPADLHeader is message i.
func (r *guestReplay) openParams(i int) (p OpenParams) {
	header := r.messages[i].parse.(*vmbus.GPADLHeader)
	words := vmbus.Words(r.messages[i].tail)
	for _, m := range r.messages[i:] {
		switch b := m.parse.(type) {
		case *vmbus.GPADLBody:
			if b.GPADL == header.GPADL {
				words = append(words, vmbus.Words(m.tail)...)
			}
		case *vmbus.OpenChannel:
			if b.Ring == header.GPADL && p.PFNs == nil {
				p.HostOffset, p.TargetVP, p.UserData = b.HostOffset, b.TargetVP, b.UserData
				p.PFNs = words[1 : int(header.RangeBufLen)/8] // behind the size of the one range
				return p
			}
		}
	}
	p.PFNs = words[1 : int(header.RangeBufLen)/8]
	return p
}
