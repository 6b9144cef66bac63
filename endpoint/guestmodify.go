package endpoint

import (
	"fmt"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
)

// A ModifyError says the host refused to move a channel's interrupt.
type ModifyError struct {
	Channel vmbus.ChannelID
	Status  uint32
}

func (e *ModifyError) Error() string {
	return fmt.Sprintf("endpoint: the host refused to move the interrupt of channel %d with status %#x", e.Channel, e.Status)
}

// A modification is a ModifyChannel that waits for its answer.
type modification struct {
	vp   uint32
	ring vmbus.GPADLID // the opening it is meant for
}

// ModifyChannel moves the interrupt of an open channel to another VP.
// ChannelModified follows: from 5.3 on when the host has answered, before that at
// once, since there is no answer. One at a time; from 4.1.
func (g *Guest) ModifyChannel(id vmbus.ChannelID, vp uint32) error {
	c := g.channels[id]
	switch {
	case g.negotiated.Version < vmbus.Win10RS3:
		return fmt.Errorf("endpoint: VMBus %v has no ModifyChannel, 4.1 is needed: %w", g.negotiated.Version, vmbus.ErrState)
	case g.state == GuestUnloading:
		return fmt.Errorf("endpoint: the guest is unloading: %w", vmbus.ErrState)
	case c == nil || !putback.On(putback.GC13) && (c.state != channel.GuestOpen || c.item.Rescinded()):
		return fmt.Errorf("endpoint: channel %d is not open: %w", id, vmbus.ErrState)
	case c.open.Reserved != nil || c.open.TargetVP == vmbus.NoInterrupt || vp == vmbus.NoInterrupt:
		return fmt.Errorf("endpoint: channel %d has no interrupt to move: %w", id, vmbus.ErrState)
	case c.modify != nil:
		return fmt.Errorf("endpoint: the interrupt of channel %d is moving already: %w", id, vmbus.ErrState)
	}
	g.post(&vmbus.ModifyChannel{Channel: id, TargetVP: vp})
	if g.negotiated.Version < vmbus.Iron {
		g.modified(c, vp)
		return nil
	}
	c.modify = &modification{vp, c.ring}
	return nil
}

// modified says that the interrupt has moved. The driver drains the old VP's
// event flags once more, since one may have been set just before the move
// (faults.md GC-10).
func (g *Guest) modified(c *guestChannel, vp uint32) {
	old := c.open.TargetVP
	c.open.TargetVP = vp
	g.emit(ChannelModified{Channel: c.item.Offer.Channel, OldVP: old, VP: vp})
}

// modifyResponse handles ModifyChannelResponse.
func (g *Guest) modifyResponse(m vmbus.ModifyChannelResponse) error {
	c := g.channels[m.Channel]
	if c == nil || c.modify == nil {
		return &DropError{Message: vmbus.TypeModifyChannelResponse, Channel: m.Channel, Reason: "no such request is waiting"}
	}
	asked := *c.modify
	c.modify = nil
	switch {
	case c.state != channel.GuestOpen || c.ring != asked.ring: // closed meanwhile: nobody asks any more
	case m.Status != vmbus.StatusSuccess:
		g.emit(ChannelModified{m.Channel, c.open.TargetVP, c.open.TargetVP, &ModifyError{m.Channel, m.Status}})
	default:
		g.modified(c, asked.vp)
	}
	g.release(c)
	return nil
}
