package kvmguest

import (
	"fmt"
	"sync"
)

// A noteFunc reports an unusual event.
type noteFunc func(format string, args ...any)

// A notebook passes each different unusual event on once, and no more than
// maxNotes of them: the guest decides how often they happen.
type notebook struct {
	log func(string)

	mu   sync.Mutex
	seen map[string]bool
}

func newNotebook(log func(string)) *notebook {
	return &notebook{log: log, seen: make(map[string]bool)}
}

func (n *notebook) note(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	n.mu.Lock()
	known := n.seen[message] || len(n.seen) >= maxNotes
	if !known {
		n.seen[message] = true
	}
	n.mu.Unlock()
	if !known {
		n.log(message)
	}
}
