package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/putback"
)

// thisSystem names the machine in reports and errors.
const thisSystem = runtime.GOOS + "/" + runtime.GOARCH

// probeTimeout bounds each step of Probe that could wait.
const probeTimeout = 2 * time.Second

// ProbePort is the port of the service that Probe tries on Windows. It is fixed,
// since a service must be registered there before it can be used. In hexadecimal
// it is 68 76, "hv", and 01.
const ProbePort = 0x687601

// What a Report speaks of.
const (
	OfferFamily   = "address family" // sockets can be opened
	OfferLoopback = "loopback"       // this machine can connect to itself
	OfferParent   = "parent"         // this machine is a guest with a way to its host
)

// An Offer is one thing that a machine has or has not.
type Offer struct {
	Name   string `json:"name"`
	Usable bool   `json:"usable"`
	Detail string `json:"detail"`           // what was found
	Enable string `json:"enable,omitempty"` // command that would provide it; "" if there is none to give
}

// A Report says what a machine offers.
type Report struct {
	System string  `json:"system"`           // like "linux/amd64"
	Family string  `json:"family,omitempty"` // AF_VSOCK, AF_HYPERV, or "" for none
	CID    *uint32 `json:"cid,omitempty"`    // AF_VSOCK: this machine's context id, if it could be asked
	Offers []Offer `json:"offers"`
}

// Usable says whether the machine has what is called name.
func (r Report) Usable(name string) bool {
	for _, o := range r.Offers {
		if o.Name == name {
			return o.Usable
		}
	}
	return false
}

// String is one line an offer: yes or no, its name, what was found, and how to
// get it.
func (r Report) String() string {
	var b strings.Builder
	for _, o := range r.Offers {
		answer := "no "
		if o.Usable {
			answer = "yes"
		}
		fmt.Fprintf(&b, "%s  %-14s  %s", answer, o.Name, o.Detail)
		if o.Enable != "" {
			fmt.Fprintf(&b, "; to enable it: %s", o.Enable)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Probe says what this machine offers. It opens sockets and connects to itself,
// where that cannot leave the machine; it connects to nobody else and changes
// nothing.
func Probe() Report { return probe() }

// unsupportedReport is the Report of a system without the address family.
func unsupportedReport(family string, err error, enable string) Report {
	r := Report{System: thisSystem, Family: family}
	detail := "Hyper-V sockets exist on Linux and Windows"
	if err != nil {
		detail = err.Error()
	}
	r.Offers = []Offer{
		{Name: OfferFamily, Detail: detail, Enable: enable},
		{Name: OfferLoopback, Detail: "needs the address family"},
		{Name: OfferParent, Detail: "needs the address family"},
	}
	return r
}

// vsockFacts is what a Linux machine says about itself.
type vsockFacts struct {
	family   error // opening a socket
	cid      uint32
	cidErr   error // asking for the CID
	hvSock   bool  // the transport of Hyper-V's guests is loaded
	loopback error // connecting to this machine
}

// report judges the facts.
func (f vsockFacts) report() Report {
	if f.family != nil {
		return unsupportedReport("AF_VSOCK", f.family, vsockEnable)
	}
	r := Report{System: thisSystem, Family: "AF_VSOCK"}
	r.Offers = append(r.Offers, Offer{Name: OfferFamily, Usable: true, Detail: "AF_VSOCK sockets open"})

	loopback := Offer{Name: OfferLoopback, Usable: f.loopback == nil, Detail: "connected to this machine through CID 1"}
	var address *AddressError
	switch {
	case errors.As(f.loopback, &address):
		loopback.Detail, loopback.Enable = "the loopback transport is not loaded", vsockLoopbackEnable
	case f.loopback != nil:
		loopback.Detail = f.loopback.Error()
	}
	return f.withParent(r, loopback)
}

// errNotVSock reports a family 40 that is something else: sandboxes that emulate
// Linux answer a socket call they do not know in odd ways (faults.md GO-07).
var errNotVSock = errors.New("a socket of address family 40 has no AF_VSOCK name")

// checkName judges the name of a new socket of family 40, which in AF_VSOCK is
// "any port of any CID"; isVSock says whether it has the shape of such a name.
func checkName(name any, isVSock bool, cid, port uint32) error {
	if putback.On(putback.GO07) {
		return nil
	}
	if !isVSock || cid != hvsock.CIDAny || port != hvsock.PortAny {
		return fmt.Errorf("%w, but %T %+v", errNotVSock, name, name)
	}
	return nil
}

// withParent adds loopback and what the CID tells to r.
func (f vsockFacts) withParent(r Report, loopback Offer) Report {
	parent := Offer{Name: OfferParent}
	switch {
	case f.cidErr != nil:
		parent.Detail, parent.Enable = f.cidErr.Error(), "sudo chmod a+r /dev/vsock"
	case f.hvSock:
		parent.Usable, parent.Detail = true, "guest of Hyper-V (hv_sock is loaded)"
	case f.cid == hvsock.CIDHost:
		parent.Detail = "this machine is a host of virtual machines: its CID is 2"
	case f.cid > hvsock.CIDHost && f.cid != hvsock.CIDAny:
		parent.Usable, parent.Detail = true, fmt.Sprintf("guest with CID %d", f.cid)
	default:
		parent.Detail, parent.Enable = "no transport to a host is loaded", "sudo modprobe hv_sock (in a guest of Hyper-V)"
	}
	if f.cidErr == nil {
		r.CID = &f.cid
	}
	r.Offers = append(r.Offers, loopback, parent)
	return r
}

// hypervFacts is what a Windows machine says about itself.
type hypervFacts struct {
	service  hvsock.Addr // what was listened on
	loopback error       // listening on and connecting to this machine
}

// report judges the facts.
func (f hypervFacts) report() Report {
	if errors.Is(f.loopback, errors.ErrUnsupported) {
		return unsupportedReport("AF_HYPERV", f.loopback, hypervEnable)
	}
	r := Report{System: thisSystem, Family: "AF_HYPERV"}
	r.Offers = []Offer{{Name: OfferFamily, Usable: true, Detail: "AF_HYPERV sockets open"}}
	loopback := Offer{Name: OfferLoopback, Usable: f.loopback == nil, Detail: "connected to this machine through " + hvsock.Loopback.String()}
	if f.loopback != nil {
		loopback.Detail = f.loopback.Error()
		if errors.Is(f.loopback, syscall.EACCES) {
			loopback.Enable = RegisterCommand(f.service.ServiceID, "hvlab")
		}
	}
	r.Offers = append(r.Offers, loopback, Offer{
		Name:   OfferParent,
		Detail: "Windows does not say whether it is a guest; dial VM id " + hvsock.Parent.String() + " to see",
	})
	return r
}

// tryLoopback connects to this machine at addr and sends a byte there and back.
// Everything in it has a bound.
func (s system) tryLoopback(addr hvsock.Addr) error {
	l, err := s.listenOn(addr)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.SetDeadline(time.Now().Add(probeTimeout)); err != nil {
		return err
	}
	echoed := make(chan error, 1)
	go func() { echoed <- echoByte(l) }()
	sent := s.sendByte(l.Addr().(hvsock.Addr))
	if sent != nil {
		_ = l.Close() // so that the other side need not wait for its deadline
	}
	if err := <-echoed; err != nil && sent == nil {
		return err
	}
	return sent
}

// probeByte is what Probe sends.
const probeByte = 0x5A

// sendByte sends a byte to addr and wants it back.
func (s system) sendByte(addr hvsock.Addr) error {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	c, err := s.dialTo(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(probeTimeout)); err != nil {
		return err
	}
	if putback.On(putback.GO09) {
		_ = c.SetDeadline(time.Time{})
	}
	if _, err := c.Write([]byte{probeByte}); err != nil {
		return err
	}
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	if b[0] != probeByte {
		return fmt.Errorf("sent %#x to this machine and got %#x back", probeByte, b[0])
	}
	return nil
}

// echoByte accepts one connection and returns its first byte.
func echoByte(l *Listener) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(probeTimeout)); err != nil {
		return err
	}
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	_, err = c.Write(b[:])
	return err
}
