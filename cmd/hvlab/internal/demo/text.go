package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// WriteText writes the account for people. The list of control messages is that
// of guest1's bus; withMessages false leaves it out, for when every message has
// already been printed as it came.
func (r *Report) WriteText(w io.Writer, withMessages bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "guest1 sends %s (%s bytes) to a service of the host, while guest2 sends %s bytes of its\n",
		r.Input, commas(r.Bytes), commas(int64(neighbourBytes)))
	fmt.Fprint(&b, "own to the same service; then the host dials a service of guest1.\n\nGuests\n")
	for _, g := range r.Guests {
		fmt.Fprintf(&b, "  %s  VMBus %s  vm id %v\n", g.Name, g.Version, g.ID)
	}
	if withMessages {
		r.writeMessages(&b)
	}
	fmt.Fprint(&b, "\nConnections  (signals saved were not needed by the other end)\n")
	fmt.Fprintf(&b, trafficLine, "", "bytes", "packets", "signals", "saved")
	for _, c := range r.Connections {
		c.writeText(&b)
	}
	fmt.Fprint(&b, "\nChecks\n")
	for _, c := range r.Checks {
		mark := "ok  "
		if !c.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(&b, "  %s  %-15s  %s\n", mark, c.Name, c.Detail)
	}
	fmt.Fprintf(&b, "\nsha256  %s  (what guest1 sent)\n", r.SHA256)
	fmt.Fprintf(&b, "speed   %.0f MB/s  (%s bytes in %v, SHA-256 at both ends included)\n",
		r.MBps(), commas(r.Bytes), r.Duration.Round(10*time.Microsecond))
	_, err := io.WriteString(w, b.String())
	return err
}

// writeMessages lists the control messages of guest1's bus. Messages of the same
// name in a row, as the bodies of a long page list are, share a line.
func (r *Report) writeMessages(b *strings.Builder) {
	own := ofGuest(r.Events, r.Guests[0].Name)
	fmt.Fprintf(b, "\nControl messages of %s  (-v shows all fields, and the %d messages of the others)\n",
		r.Guests[0].Name, len(r.Events)-len(own))
	for i := 0; i < len(own); {
		n := 1
		for i+n < len(own) && own[i+n].Name == own[i].Name && own[i+n].Dir == own[i].Dir {
			n++
		}
		number := strconv.Itoa(i + 1)
		times := ""
		if n > 1 {
			number += "-" + strconv.Itoa(i+n)
			times = fmt.Sprintf("%d times, the last: ", n)
		}
		line := fmt.Sprintf("  %5s  %s  %-19s  %s", number, own[i].Dir, own[i].Name, times+brief(own[i+n-1]))
		fmt.Fprintln(b, strings.TrimRight(line, " "))
		i += n
	}
}

func (c *Connection) writeText(b *strings.Builder) {
	who := c.Guest + " dials the host"
	if c.Dialer == "host" {
		who = "the host dials " + c.Guest
	}
	fmt.Fprintf(b, "  %s, port %d: channel %d, GPADL %v, rings of %d + %d pages, %s + %s data bytes\n",
		who, port(c.Service), c.Channel, c.Ring.GPADL, c.Ring.GuestPages, c.Ring.HostPages,
		commas(dataBytes(c.Ring.GuestPages)), commas(dataBytes(c.Ring.HostPages)))
	c.FromGuest.writeText(b, "guest>host")
	c.FromHost.writeText(b, "host>guest")
}

func (t Traffic) writeText(b *strings.Builder, dir string) {
	fmt.Fprintf(b, trafficLine, dir, commas(t.Bytes), commas(t.Packets), commas(t.Signals), commas(t.SignalsSaved))
}

// trafficLine is one end of a connection: who writes to whom, and what it wrote
// and signalled.
const trafficLine = "    %10s  %15s  %9s  %9s  %9s\n"

// commas is n with a comma between thousands.
func commas[N int64 | uint64](n N) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
