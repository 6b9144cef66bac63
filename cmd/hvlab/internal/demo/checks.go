package demo

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// account fills in the report when the world has ended.
func (r *run) account(report *Report, left Left) {
	report.Events = r.events.Events()
	for _, c := range connections(report.Events) {
		guest := r.ends[endKey{c.Guest, port(c.Service), "guest"}]
		host := r.ends[endKey{c.Guest, port(c.Service), "host"}]
		c.FromGuest, c.FromHost = traffic(guest.stats), traffic(host.stats)
		dialer, listener := guest, host
		if c.Dialer == "host" {
			dialer, listener = host, guest
		}
		c.Sent, c.Received, c.Echoed = dialer.sum, listener.sum, dialer.echoed
		if c.Guest == "guest1" && c.Dialer == "guest" {
			report.Bytes, report.SHA256 = guest.bytes, guest.sum
		}
		report.Connections = append(report.Connections, c)
	}
	report.Checks = []Check{
		checkVersions(report.Guests, r.opts.Version),
		checkSums(report.Connections),
		checkDirections(report),
		checkNeighbours(report),
		checkEnds(report),
		checkMessages(report.Events, r.events.Dropped()),
		checkLeft(left),
	}
}

// traffic is what one end wrote. Its signals are of both kinds: that there is
// data, and that there is room again.
func traffic(s hvsock.Stats) Traffic {
	return Traffic{
		Bytes:        s.Out.Bytes,
		Packets:      s.Out.Packets,
		Signals:      s.Out.Signals + s.In.Signals,
		SignalsSaved: s.Out.SignalsSaved + s.In.SignalsSaved,
	}
}

// checkVersions wants the forced version; 0 is the newest.
func checkVersions(guests []Guest, want vmbus.Version) Check {
	if want == 0 {
		known := vmbus.Versions()
		want = known[len(known)-1]
	}
	for _, g := range guests {
		if g.Version != want.String() {
			return Check{Name: "version", Detail: fmt.Sprintf("%s negotiated %s instead of %v", g.Name, g.Version, want)}
		}
	}
	return Check{Name: "version", OK: true, Detail: fmt.Sprintf("both guests negotiated %v", want)}
}

func checkSums(all []Connection) Check {
	check := Check{Name: "checksums", OK: true, Detail: "each listener received what its dialer sent, and said so"}
	for _, c := range all {
		if c.Sent == "" || c.Received != c.Sent || c.Echoed != c.Sent {
			check.OK = false
			check.Detail = fmt.Sprintf("%s, service %v: sent %s, received %s, echoed %s", c.Guest, c.Service, c.Sent, c.Received, c.Echoed)
		}
	}
	return check
}

// checkDirections wants a connection that a guest asked for, and one that the
// host offered unasked, with is_for_guest_accept = 1.
func checkDirections(r *Report) Check {
	dialers := map[string]int{}
	for _, c := range r.Connections {
		if asked := requested(r.Events, c.endpoint); asked == (c.Dialer == "guest") {
			dialers[c.Dialer]++
		}
	}
	return Check{
		Name:   "both directions",
		OK:     dialers["guest"] == 2 && dialers["host"] == 1,
		Detail: fmt.Sprintf("guests dialed the host %d times, the host dialed a guest %d times (offer first)", dialers["guest"], dialers["host"]),
	}
}

// checkNeighbours wants no trace of one guest's sockets on the other's bus.
func checkNeighbours(r *Report) Check {
	check := Check{Name: "two guests", OK: true, Detail: "no id of one guest was seen on the other's bus"}
	seen := map[uuid.UUID]string{}
	for _, g := range r.Guests {
		for _, id := range identities(ofGuest(r.Events, g.Name)) {
			if other := seen[id]; other != "" {
				check.OK = false
				check.Detail = fmt.Sprintf("%v was seen on the buses of %s and %s", id, other, g.Name)
			}
			seen[id] = g.Name
		}
	}
	return check
}

func checkEnds(r *Report) Check {
	check := Check{Name: "ends", OK: true, Detail: "every channel was rescinded, closed, its pages taken back, its id released"}
	for _, c := range r.Connections {
		if !ended(r.Events, c) {
			check.OK = false
			check.Detail = fmt.Sprintf("%s: channel %d has not gone through all of its end", c.Guest, c.Channel)
		}
	}
	return check
}

// checkMessages wants every message understood. What one side drops or cannot
// parse is an event too.
func checkMessages(events []trace.Event, lost uint64) Check {
	bad := slices.DeleteFunc(slices.Clone(events), func(e trace.Event) bool { return e.Name != "drop" && e.Name != "malformed" })
	switch {
	case len(bad) > 0:
		return Check{Name: "messages", Detail: fmt.Sprintf("%d were not understood: %v", len(bad), bad[0])}
	case lost > 0:
		return Check{Name: "messages", Detail: fmt.Sprintf("%d events are missing in this account", lost)}
	}
	return Check{Name: "messages", OK: true, Detail: fmt.Sprintf("%d, none dropped or malformed", len(events))}
}

// checkLeft wants nothing left: not while the guests were still connected, so
// that connections clean up after themselves, and not after the end.
func checkLeft(left Left) Check {
	kept := append(slices.Clone(left.Connected), left.Closed...)
	if left.GoroutinesAfter > left.GoroutinesBefore {
		kept = append(kept, fmt.Sprintf("%d goroutines more than before", left.GoroutinesAfter-left.GoroutinesBefore))
	}
	if len(kept) > 0 {
		return Check{Name: "nothing left", Detail: strings.Join(kept, "; ")}
	}
	return Check{
		Name: "nothing left",
		OK:   true,
		Detail: fmt.Sprintf("0 channel ids, GPADLs, guest pages, connections and listeners; goroutines %d before, %d after",
			left.GoroutinesBefore, left.GoroutinesAfter),
	}
}
