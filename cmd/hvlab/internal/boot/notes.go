package boot

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// notes writes lines to the user, whole ones, from any goroutine.
type notes struct {
	verbose bool

	mu sync.Mutex
	w  io.Writer
}

// line writes one line. A stderr that is gone does not stop the guest.
func (n *notes) line(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _ = fmt.Fprintln(n.w, text)
}

// say writes a line in the name of the command.
func (n *notes) say(text string) { n.line("hvlab: " + text) }

// monitor is told about unusual events in the machine. The statistics at the end
// of each run are for those who asked for much.
func (n *notes) monitor(text string) {
	if n.verbose || !strings.HasPrefix(text, "exits to the monitor") {
		n.say("the virtual machine: " + text)
	}
}
