package endpoint

import (
	"cmp"
	"fmt"

	"github.com/hvlab/hvlab/vmbus"
)

// A contact is an InitiateContact being served.
type contact struct {
	message  vmbus.InitiateContact
	clientID vmbus.GUID
	info     vmbus.TargetInfo
	granted  vmbus.Negotiated
	trusted  bool
}

// receiveContact runs the checks of vmbus-control.md 2.5 in their order.
// Parsing did checks 1 and 2.
func (h *Host) receiveContact(from Source, m vmbus.Message) error {
	c := contact{trusted: from.Trusted}
	switch m := m.(type) {
	case *vmbus.InitiateContact:
		c.message = *m
	case *vmbus.InitiateContact2:
		c.message, c.clientID = m.InitiateContact, m.ClientID
	}
	c.info = vmbus.TargetInfo{SINT: VMBusSINT}
	if c.message.Version >= vmbus.Win10V5 {
		info := vmbus.UnpackTargetInfo(c.message.Version, c.message.TargetInfo)
		c.info.Features = info.Features
		if from.Port != MessagePort { // the bytes are ignored on the single-client port
			c.info.SINT, c.info.VTL = info.SINT, info.VTL
		}
	}
	if c.info.VTL != 0 {
		return &DropError{Message: vmbus.TypeInitiateContact, Reason: fmt.Sprintf("no server for VTL %d", c.info.VTL)}
	}
	if c.info.SINT != VMBusSINT {
		h.direct(target{c.message.TargetVP, c.info.SINT}, &vmbus.VersionResponse{})
		return &DropError{Message: vmbus.TypeInitiateContact, Reason: fmt.Sprintf("SINT %d is not supported", c.info.SINT)}
	}
	if h.state == HostDisconnected {
		h.beginContact(c)
		return nil
	}
	if h.connected() { // what a pause held back is about a connection nobody knows any more
		h.out.clear()
	}
	h.disconnect(Contacts, nextAction{kind: thenReconnect, contact: c})
	return nil
}

// beginContact serves c from state Disconnected: version, then monitor pages,
// then the driver maps them.
func (h *Host) beginContact(c contact) {
	v := c.message.Version
	if !v.Known() || v > h.opts.MaxVersion {
		h.send(&vmbus.VersionResponse{}) // to the previous target: it moves only on acceptance
		return
	}
	c.granted = vmbus.Negotiated{Version: v}
	if v >= vmbus.Copper {
		c.granted.Features = c.info.Features & h.opts.Features
		if !c.trusted {
			c.granted.Features &^= vmbus.ConfidentialChannels
		}
	}
	if (c.message.ParentToChild == 0) != (c.message.ChildToParent == 0) {
		h.refuseSetup(c)
		return
	}
	if c.granted.Features&vmbus.ServerMonitorPages != 0 { // the guest's own are not used
		c.message.ParentToChild, c.message.ChildToParent = h.opts.ParentToChild, h.opts.ChildToParent
	}
	if h.move(Contacts) != nil {
		return
	}
	h.contact, h.trusted = c, c.trusted
	h.emit(h.setup(c))
}

// setup is what the driver maps for c.
func (h *Host) setup(c contact) SetupConnection {
	v := c.granted.Version
	setup := SetupConnection{
		Negotiated: c.granted, ParentToChild: c.message.ParentToChild,
		ChildToParent: c.message.ChildToParent, ClientID: c.clientID,
	}
	if v < vmbus.Win8 {
		setup.InterruptPage = c.message.TargetInfo
	}
	if v >= vmbus.Win81 || h.opts.Dialect.MessageVPBelow30 {
		setup.TargetVP = c.message.TargetVP
	}
	return setup
}

// SetupDone answers SetupConnection. After a failure a contact or reset that
// was remembered meanwhile is served.
func (h *Host) SetupDone(ok bool) {
	if h.state != Connecting {
		return
	}
	c := h.contact
	h.contact = contact{}
	if !ok {
		_ = h.move(SetUpFails)
		h.trusted = false
		h.refuseSetup(c)
		next := h.after
		h.after = nextAction{}
		switch next.kind {
		case thenReconnect:
			h.beginContact(next.contact)
		case thenReset:
			h.Reset()
		}
		return
	}
	_ = h.move(SetUp)
	h.negotiated = c.granted
	h.monitors = c.message.ParentToChild != 0
	h.targetVP = 0
	if c.granted.Version >= vmbus.Win81 || h.opts.Dialect.MessageVPBelow30 {
		h.targetVP = c.message.TargetVP
	}
	h.send(h.accept(c))
	h.emit(Accepted{h.negotiated})
	next := h.after
	h.after = nextAction{}
	switch next.kind {
	case thenReconnect:
		h.disconnect(Contacts, next)
	case thenReset:
		h.disconnect(MachineResets, next)
	}
}

// accept builds the answer to an accepted contact (vmbus-control.md 2.6).
func (h *Host) accept(c contact) vmbus.Message {
	r := vmbus.VersionResponse{Supported: 1, VersionOrConnectionID: uint32(c.granted.Version)}
	if h.opts.Dialect.NoVersionEcho {
		r.VersionOrConnectionID = 0
	}
	if c.granted.Version >= vmbus.Win10V5 {
		r.VersionOrConnectionID = cmp.Or(h.opts.Dialect.MessageConnection, MessagePort)
	}
	if c.granted.Version < vmbus.Copper {
		return &r
	}
	r2 := vmbus.VersionResponse2{VersionResponse: r, Features: c.granted.Features}
	if c.granted.Features&vmbus.ServerMonitorPages == 0 {
		return &r2
	}
	return &vmbus.VersionResponse3{VersionResponse2: r2, ParentToChild: h.opts.ParentToChild, ChildToParent: h.opts.ChildToParent}
}

// refuseSetup answers a contact of a known version that cannot be set up.
func (h *Host) refuseSetup(c contact) {
	const unknownFailure = 2
	if !h.opts.ReportSetupFailure || c.message.Version < vmbus.Win8 {
		h.send(&vmbus.VersionResponse{})
		return
	}
	c.granted.Features &^= vmbus.ServerMonitorPages // a failure has no pages
	switch r := h.accept(c).(type) {
	case *vmbus.VersionResponse:
		r.ConnectionState = unknownFailure
		h.send(r)
	case *vmbus.VersionResponse2:
		r.ConnectionState = unknownFailure
		h.send(r)
	}
}
