package hvsock

import "time"

// Times of a connection. Source: hvsock.md 8.
const (
	// defaultDialTimeout ends a dial whose context has no deadline.
	defaultDialTimeout = 2 * time.Second
	// maxDialTimeout ends every other dial, however late its context's deadline,
	// unless a Profile has NoTimeout (faults.md 5).
	maxDialTimeout = 300 * time.Second
	// openTimeout is how long the host waits for a guest that dialed to open
	// the offered channel.
	openTimeout = 5 * time.Second
	// closeTimeout bounds what happens in the background after Close.
	closeTimeout = 8 * time.Second
)
