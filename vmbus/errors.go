package vmbus

import (
	"errors"
	"fmt"
)

// Every error of hvlab says whose fault it is: errors.Is(err, ErrProtocol) for
// the peer, errors.Is(err, ErrState) for the caller.
var (
	// ErrProtocol matches errors caused by what the peer sent or wrote.
	ErrProtocol = errors.New("the peer broke the protocol")
	// ErrState matches errors caused by a call that its state or arguments forbid.
	ErrState = errors.New("the call is not allowed here")
)

// A ParseError reports a control message that cannot be decoded: it is shorter
// than the shortest form its type has in the negotiated version.
type ParseError struct {
	Type Type // 0 when even the type is missing
	// Have and Min count bytes after the header. Have is negative when the
	// header itself is cut short.
	Have, Min int
}

func (e *ParseError) Error() string {
	if e.Have < 0 {
		return fmt.Sprintf("vmbus: have %d bytes, a message header needs %d", e.Have+HeaderBytes, HeaderBytes)
	}
	return fmt.Sprintf("vmbus: message type %d (%v): have %d bytes after the header, need %d", uint32(e.Type), e.Type, e.Have, e.Min)
}

// Is says that a short message is the peer's fault.
func (e *ParseError) Is(target error) bool { return target == ErrProtocol }

// A TypeError reports a message type that does not exist, or does not exist in
// what this connection negotiated.
type TypeError struct {
	Type       Type
	Negotiated Negotiated
}

func (e *TypeError) Error() string {
	if e.Type.Direction() == 0 {
		return fmt.Sprintf("vmbus: message type %d is unknown", uint32(e.Type))
	}
	return fmt.Sprintf("vmbus: message type %d (%v) is not part of version %v with features %v",
		uint32(e.Type), e.Type, e.Negotiated.Version, e.Negotiated.Features)
}

// Is says that an unavailable type is the peer's fault.
func (e *TypeError) Is(target error) bool { return target == ErrProtocol }

// A DirectionError reports a message that travels the other way, such as a
// guest that sends an offer.
type DirectionError struct {
	Type Type
	From Direction // the way it came
}

func (e *DirectionError) Error() string {
	return fmt.Sprintf("vmbus: message type %d (%v) came %v", uint32(e.Type), e.Type, e.From)
}

// Is says that a wrong direction is the peer's fault.
func (e *DirectionError) Is(target error) bool { return target == ErrProtocol }

// A TextError reports a text that names no value of its kind.
type TextError struct {
	Kind string // "version", "GUID"
	Text string
}

func (e *TextError) Error() string { return fmt.Sprintf("vmbus: %q is no %s", e.Text, e.Kind) }

// Is says that a wrong text is the caller's fault.
func (e *TextError) Is(target error) bool { return target == ErrState }
