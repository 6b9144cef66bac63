package endpoint

import (
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/vmbus"
)

// An Action is an effect the driver must carry out, in order.
type Action interface{ action() }

// A Token names one request to a device. The device's answer carries it back;
// an answer whose token has been overtaken is ignored.
type Token uint64

// An OfferID names one published offer for as long as the host knows it.
type OfferID uint64

// Actions of the host core.
type (
	// SetupConnection asks the driver to map what the guest handed over.
	// Answered by Host.SetupDone.
	SetupConnection struct {
		Negotiated    vmbus.Negotiated
		InterruptPage uint64 // guest physical address, 0 from version 2.4 on
		ParentToChild uint64 // monitor pages, both 0 if the guest has none
		ChildToParent uint64
		TargetVP      uint32
		ClientID      vmbus.GUID
	}
	// ResetConnection asks the driver to forget what SetupConnection mapped.
	// Answered by Host.ResetDone.
	ResetConnection struct{}
	// Accepted says the version was agreed on.
	Accepted struct{ Negotiated vmbus.Negotiated }
	// GuestGone says the guest has disconnected, whoever caused it: offers made
	// for this connection alone should be revoked.
	GuestGone struct{}
	// OpenDevice asks the device to open. Answered by Host.OpenDone.
	OpenDevice struct {
		Offer   OfferID
		Token   Token
		Request OpenRequest
	}
	// CloseDevice asks the device to close. Answered by Host.CloseDone.
	CloseDevice struct {
		Offer OfferID
		Token Token
	}
	// AddGPADL tells the device of shared pages. Answered by Host.GPADLDone.
	AddGPADL struct {
		Offer  OfferID
		Token  Token
		GPADL  vmbus.GPADLID
		Ranges []channel.Range
	}
	// DropGPADL asks the device to let go of pages. Answered by
	// Host.TeardownDone, after the last access.
	DropGPADL struct {
		Offer OfferID
		Token Token
		GPADL vmbus.GPADLID
	}
	// RetargetDevice moves a channel's interrupt. Answered by Host.ModifyDone.
	RetargetDevice struct {
		Offer    OfferID
		Token    Token
		TargetVP uint32
	}
	// RemapMonitors replaces the guest's monitor pages; both 0 removes them.
	// Answered by Host.RemapDone.
	RemapMonitors struct {
		Token                        Token
		ParentToChild, ChildToParent uint64
	}
	// SocketRequested says a guest dials a host service. Answered by
	// Host.RefuseSocket or Host.AcceptSocket.
	SocketRequested struct {
		Endpoint, Service, Silo vmbus.GUID
		SiloAware               bool // the guest negotiated 5.2 or later
	}
	// OfferGone says the host has forgotten the offer: the guest has released
	// the channel id, or never knew it.
	OfferGone struct{ Offer OfferID }
	// ResetFinished answers Host.Reset.
	ResetFinished struct{}
	// SendDirect is a message that bypasses the outbox and is lost if the slot
	// is busy: the answer to a contact for another SINT.
	SendDirect struct{ Outgoing }
)

func (SetupConnection) action() {}
func (ResetConnection) action() {}
func (Accepted) action()        {}
func (GuestGone) action()       {}
func (OpenDevice) action()      {}
func (CloseDevice) action()     {}
func (AddGPADL) action()        {}
func (DropGPADL) action()       {}
func (RetargetDevice) action()  {}
func (RemapMonitors) action()   {}
func (SocketRequested) action() {}
func (OfferGone) action()       {}
func (ResetFinished) action()   {}
func (SendDirect) action()      {}

// An OpenRequest is an accepted OpenChannel with everything a device needs.
type OpenRequest struct {
	Channel         vmbus.ChannelID
	ToHost, ToGuest []uint64 // page numbers of the two rings
	TargetVP        uint32
	NoInterrupt     bool   // the guest polls
	ConnectionID    uint32 // guest to host doorbell
	EventFlag       uint16 // host to guest doorbell
	Redirected      bool   // the interrupt goes to the redirect VTL and SINT
	Ring            vmbus.GPADLID
	UserData        vmbus.UserData
	MonitorID       uint8  // the guest signals through its monitor page; vmbus.NoMonitor if not
	MonitorLatency  uint16 // how late that may be noticed, in units of 100 ns
}

// An Outgoing is one message on its way to the guest.
type Outgoing struct {
	VP      uint32
	SINT    uint8
	Message vmbus.Message
	padded  bool
}

// Actions of the guest core.
type (
	// Connected says a version was agreed on; RequestOffers follows.
	Connected struct {
		Negotiated                   vmbus.Negotiated
		ParentToChild, ChildToParent uint64 // monitor pages in use, 0 without
	}
	// ConnectionModified answers Guest.ModifyConnection with a connection state
	// of the wire.
	ConnectionModified struct{ State uint8 }
	// Paused answers Guest.Pause: until Guest.Resume the host is silent.
	Paused struct{}
	// ConnectFailed says the host refused every version.
	ConnectFailed struct{ Err error }
	// OffersDelivered says every static offer has been seen.
	OffersDelivered struct{}
	// OfferArrived hands over a new offer.
	OfferArrived struct{ Offer vmbus.OfferChannel }
	// OfferRescinded says the host has withdrawn a channel. A driver that has
	// it open must stop using the rings and call Guest.Close.
	OfferRescinded struct{ Channel vmbus.ChannelID }
	// ChannelOpened answers Guest.Open.
	ChannelOpened struct {
		Channel      vmbus.ChannelID
		ConnectionID uint32 // the guest signals here
		EventFlag    uint16 // the host signals here, from 2.4
	}
	// ChannelModified answers Guest.ModifyChannel. The driver drains the event
	// flags of OldVP once more; after an error both VPs are the same.
	ChannelModified struct {
		Channel   vmbus.ChannelID
		OldVP, VP uint32
		Err       error
	}
	// OpenFailed answers Guest.Open. The pages stay shared until RingFree.
	OpenFailed struct {
		Channel vmbus.ChannelID
		Err     error
	}
	// RingFree says the host has let go of the ring pages.
	RingFree struct{ Channel vmbus.ChannelID }
	// ChannelReleased says the channel id was given back.
	ChannelReleased struct{ Channel vmbus.ChannelID }
	// SocketRefused answers Guest.RequestSocket; success is an offer instead.
	SocketRefused struct {
		Endpoint, Service vmbus.GUID
		Status            uint32
	}
	// Disconnected says the connection is over: after Guest.Unload, or because
	// the host broke the protocol (Err). Kept says that the host was not heard to
	// let go of the pages it was given: nobody may use them again.
	Disconnected struct {
		Err  error
		Kept bool
	}
)

func (Connected) action()          {}
func (ConnectionModified) action() {}
func (Paused) action()             {}
func (ConnectFailed) action()      {}
func (OffersDelivered) action()    {}
func (OfferArrived) action()       {}
func (OfferRescinded) action()     {}
func (ChannelOpened) action()      {}
func (ChannelModified) action()    {}
func (OpenFailed) action()         {}
func (RingFree) action()           {}
func (ChannelReleased) action()    {}
func (SocketRefused) action()      {}
func (Disconnected) action()       {}

// A Posting is one message on its way to the host. The driver posts Payload on
// connection id Port; Message says what it is.
type Posting struct {
	Port    uint32
	Message vmbus.Message
	Payload []byte
}
