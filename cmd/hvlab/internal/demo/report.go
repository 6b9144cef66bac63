package demo

import (
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// A Report is what happened in one run.
type Report struct {
	Input       string // what was sent
	Guests      []Guest
	Events      []trace.Event // of all guests, in the order in which the host saw them
	Connections []Connection
	Checks      []Check

	Bytes    int64  // of the first guest's transfer
	SHA256   string // of what the first guest sent
	Duration time.Duration
}

// A Guest is one guest of the run.
type Guest struct {
	Name    string    `json:"name"`
	ID      uuid.UUID `json:"vmid"`
	Version string    `json:"version"` // of VMBus, as negotiated
}

// A Connection is one Hyper-V socket from its dial to its end.
type Connection struct {
	Guest   string          `json:"guest"`
	Dialer  string          `json:"dialer"` // "guest" or "host"
	Service uuid.UUID       `json:"service"`
	Channel vmbus.ChannelID `json:"channel_id"`
	Ring    Ring            `json:"ring"`
	// What each end wrote, and the signals each end raised for both directions:
	// "there is data" and "there is room again".
	FromGuest Traffic `json:"from_guest"`
	FromHost  Traffic `json:"from_host"`
	// SHA-256 of what the dialer sent, of what the listener received, and what the
	// listener told the dialer.
	Sent     string `json:"sha256_sent"`
	Received string `json:"sha256_received"`
	Echoed   string `json:"sha256_echoed"`

	offer    int // index of its OfferChannel in Report.Events
	endpoint vmbus.GUID
}

// A Ring is the memory of a connection, as the guest's page list said.
type Ring struct {
	GPADL      vmbus.GPADLID `json:"gpadl_id"`
	GuestPages int           `json:"guest_to_host_pages"` // 4 KiB, with the control page
	HostPages  int           `json:"host_to_guest_pages"`
}

// dataBytes is what a ring of so many pages holds: all but the control page.
func dataBytes(ringPages int) int64 { return int64(ringPages-1) * guestmem.PageSize }

// Traffic is what one end wrote, and the signals it raised.
type Traffic struct {
	Bytes        uint64 `json:"bytes"` // of payload
	Packets      uint64 `json:"packets"`
	Signals      uint64 `json:"signals"`
	SignalsSaved uint64 `json:"signals_saved"` // not sent, because the peer did not need them
}

// A Check is one promise, and whether it held.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// OK reports whether every promise held.
func (r *Report) OK() bool {
	for _, c := range r.Checks {
		if !c.OK {
			return false
		}
	}
	return true
}

// MBps is the speed of the first guest's transfer in 10^6 bytes per second, from
// the first byte written to the checksum received.
func (r *Report) MBps() float64 {
	if r.Duration <= 0 {
		return 0
	}
	return float64(r.Bytes) / 1e6 / r.Duration.Seconds()
}

// Left is what remained when every connection had ended.
type Left struct {
	Connected        []string // while the buses were up, one sentence each
	Closed           []string // after the host had been closed
	GoroutinesBefore int
	GoroutinesAfter  int
}
