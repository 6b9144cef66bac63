package bridge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
)

// A HandshakeError reports a client's first line that cannot be used.
type HandshakeError struct {
	Line   []byte // what came, at most 45 bytes
	Reason string
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("bridge: handshake %q: %s", e.Line, e.Reason)
}

// Is reports the peer's fault.
func (e *HandshakeError) Is(target error) bool { return target == vmbus.ErrProtocol }

// A wanted service is what a client's line names.
type wanted struct {
	service uuid.UUID
	byPort  bool // named by its port, so the answer is a number too
}

// readLine reads a client's line, without its newline, and whatever came with
// it: rest belongs to the guest. Of an endless line it reads 45 bytes. The error
// is a *HandshakeError.
func readLine(r io.Reader) (line, rest []byte, err error) {
	buf := make([]byte, maxLineBytes)
	if putback.On(putback.SS12) {
		buf = make([]byte, 1<<20)
	}
	n := 0
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if end := bytes.IndexByte(buf[:n], '\n'); end >= 0 {
			return buf[:end], buf[end+1 : n], nil
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil, &HandshakeError{buf[:n], fmt.Sprintf("no complete line within %v", handshakeTimeout)}
		case err != nil: // the end of the stream, mostly
			return nil, nil, &HandshakeError{buf[:n], "the client ended before its line did"}
		}
	}
	return nil, nil, &HandshakeError{buf, fmt.Sprintf("no newline in the first %d bytes", maxLineBytes)}
}

// parseLine reads "CONNECT 5000" or "CONNECT 00000ac9-facb-11e6-bd58-64006a7986d3".
// The word may be in any case, the number has neither sign nor spaces. The error
// is a *HandshakeError.
func parseLine(line []byte) (wanted, error) {
	const word = "CONNECT "
	text := string(line)
	if len(text) < len(word) || !strings.EqualFold(text[:len(word)], word) {
		return wanted{}, &HandshakeError{line, "the line must be CONNECT and a port or a service GUID"}
	}
	text = text[len(word):]
	if port, err := strconv.ParseUint(text, 10, 32); err == nil {
		return wanted{service: hvsock.ServiceIDFromPort(uint32(port)), byPort: true}, nil
	}
	if len(text) == len(uuid.Nil.String()) { // uuid.Parse takes other forms too
		if id, err := uuid.Parse(text); err == nil {
			return wanted{service: id}, nil
		}
	}
	return wanted{}, &HandshakeError{line, "neither a port up to 4294967295 nor a GUID"}
}

// answer is the line that tells a client that it is connected. It names the
// host's end: the first field of its endpoint id as a number if the client used
// a port, or else the whole id.
func (w wanted) answer(endpoint uuid.UUID) string {
	if w.byPort {
		return fmt.Sprintf("OK %d\n", binary.BigEndian.Uint32(endpoint[:4]))
	}
	return fmt.Sprintf("OK %v\n", endpoint)
}
