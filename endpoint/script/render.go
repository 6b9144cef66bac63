package script

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
)

// logMessage prints the fields that are not zero.
func (w *World) logMessage(dir string, m vmbus.Message, more string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v%s", dir, m.Type(), more)
	for _, f := range vmbus.Fields(m) {
		if s := render(f.Value); s != "" {
			fmt.Fprintf(&b, " %s=%s", f.Name, s)
		}
	}
	w.log("%s", b.String())
}

// render is a field's value, empty if it is zero.
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

func (w *World) logHostAction(a endpoint.Action) {
	switch a := a.(type) {
	case endpoint.SetupConnection:
		w.log("host maps version=%v vp=%d%s", a.Negotiated.Version, a.TargetVP, pages(a.InterruptPage, a.ParentToChild, a.ChildToParent))
	case endpoint.RemapMonitors:
		w.log("host remaps%s", pages(0, a.ParentToChild, a.ChildToParent))
	case endpoint.SocketRequested:
		w.log("host is dialed service=%s endpoint=%s", short(a.Service), short(a.Endpoint))
	case endpoint.OpenDevice:
		w.logOpen(a)
	case endpoint.AddGPADL:
		w.log("device %d: pages gpadl=%#x ranges=%d", a.Offer, uint32(a.GPADL), len(a.Ranges))
	case endpoint.DropGPADL:
		w.log("device %d: let go gpadl=%#x", a.Offer, uint32(a.GPADL))
	case endpoint.CloseDevice:
		w.log("device %d: close", a.Offer)
	case endpoint.RetargetDevice:
		w.log("device %d: target vp=%d", a.Offer, a.TargetVP)
	case endpoint.OfferGone:
		w.log("device %d: offer gone", a.Offer)
	case endpoint.GuestGone:
		w.log("host: the guest is gone")
	case endpoint.ResetFinished:
		w.log("host: reset finished")
	case endpoint.SendDirect:
		w.logMessage(fmt.Sprintf("host>guest (vp %d, sint %d)", a.VP, a.SINT), a.Message, "")
	}
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

func (w *World) logOpen(a endpoint.OpenDevice) {
	r := a.Request
	vp := fmt.Sprintf("vp=%d", r.TargetVP)
	if r.NoInterrupt {
		vp = "polled"
	}
	if r.ConnectionID != endpoint.EventConnection(r.Channel) || r.EventFlag != uint16(r.Channel) {
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

func (w *World) logGuestAction(a endpoint.Action) {
	switch a := a.(type) {
	case endpoint.Connected:
		w.log("guest: connected version=%v features=%#x%s", a.Negotiated.Version, uint32(a.Negotiated.Features), pages(0, a.ParentToChild, a.ChildToParent))
	case endpoint.ConnectionModified:
		w.log("guest: connection modified state=%d", a.State)
	case endpoint.Paused:
		w.log("guest: the host is silent")
	case endpoint.ConnectFailed:
		w.log("guest: %v", a.Err)
	case endpoint.OfferArrived:
		w.log("guest: offer channel=%d", a.Offer.Channel)
	case endpoint.OfferRescinded:
		w.log("guest: channel %d is rescinded", a.Channel)
	case endpoint.ChannelOpened:
		w.log("guest: channel %d is open", a.Channel)
	case endpoint.ChannelModified:
		if a.Err != nil {
			w.log("guest: channel %d still interrupts vp %d: %v", a.Channel, a.VP, a.Err)
			return
		}
		w.log("guest: channel %d interrupts vp %d, drains the flags of vp %d once more", a.Channel, a.VP, a.OldVP)
	case endpoint.OpenFailed:
		w.log("guest: channel %d did not open: %v", a.Channel, a.Err)
	case endpoint.RingFree:
		w.log("guest: the pages of channel %d are free", a.Channel)
	case endpoint.ChannelReleased:
		w.log("guest: channel %d is released", a.Channel)
	case endpoint.SocketRefused:
		w.log("guest: refused service=%s endpoint=%s", short(a.Service), short(a.Endpoint))
	case endpoint.Disconnected:
		w.log("guest: disconnected error=%v", a.Err)
	}
}
