package bridge

import "time"

const (
	// maxLineBytes bounds the handshake line with its newline: "CONNECT " and a
	// GUID (faults.md SS-12). No more than that is read before the line ends.
	maxLineBytes = 45

	// handshakeTimeout bounds the whole handshake line, not each byte of it.
	handshakeTimeout = 5 * time.Second

	// answerTimeout bounds the write of the OK line to a client that does not read.
	answerTimeout = 5 * time.Second

	// localTimeout bounds the connect to the Unix socket of a service. It is how
	// long a Linux guest waits for its own connect by default.
	localTimeout = 2 * time.Second

	// maxConnections bounds the connections of one bridge, those in their
	// handshake included: more than half of the channels that a guest can have.
	maxConnections = 1024

	// bufferBytes is read at once in each direction: more than a ring of the
	// default size holds.
	bufferBytes = 32 << 10

	// acceptPause is the wait after an Accept that failed, for want of file
	// descriptors for example.
	acceptPause = 50 * time.Millisecond
)
