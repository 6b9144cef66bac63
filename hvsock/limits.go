package hvsock

import "time"

// Times of a connection. Source: hvsock.md 8.
const (
	// defaultDialTimeout ends a dial whose context has no deadline.
	defaultDialTimeout = 2 * time.Second
	// openTimeout is how long the host waits for a guest that dialed to open
	// the offered channel.
	openTimeout = 5 * time.Second
	// closeTimeout bounds what happens in the background after Close.
	closeTimeout = 8 * time.Second
)
