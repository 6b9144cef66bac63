package endpoint

import (
	"fmt"

	"github.com/hvlab/hvlab/vmbus"
)

// A DropError says why a message was dropped although it could be parsed.
type DropError struct {
	Message vmbus.Type
	Channel vmbus.ChannelID // 0 if the message names none
	Reason  string
	Cause   error // may be nil
}

func (e *DropError) Error() string {
	s := fmt.Sprintf("endpoint: %v dropped: %s", e.Message, e.Reason)
	if e.Channel != 0 {
		s = fmt.Sprintf("endpoint: %v for channel %d dropped: %s", e.Message, e.Channel, e.Reason)
	}
	return s
}

// Unwrap returns the refusal of the state machine, if there was one.
func (e *DropError) Unwrap() error { return e.Cause }

// Is makes a DropError match vmbus.ErrProtocol: it is the peer's fault.
func (e *DropError) Is(target error) bool { return target == vmbus.ErrProtocol }

// callerError marks err, an illegal edge, as the caller's own fault.
func callerError(err error) error { return fmt.Errorf("%w: %w", vmbus.ErrState, err) }

// A fifo is a first-in first-out list that reuses its memory.
type fifo[T any] struct {
	items []T
	head  int
}

// push appends v. A fifo that never runs empty moves down instead of growing.
func (q *fifo[T]) push(v T) {
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

// all is what the fifo holds, oldest first; it must not be kept.
func (q *fifo[T]) all() []T { return q.items[q.head:] }

func (q *fifo[T]) peek() (v T, ok bool) {
	if q.len() == 0 {
		return v, false
	}
	return q.items[q.head], true
}

func (q *fifo[T]) pop() (v T, ok bool) {
	v, ok = q.peek()
	if !ok {
		return v, false
	}
	var zero T
	q.items[q.head] = zero
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return v, true
}

func (q *fifo[T]) clear() { q.items, q.head = nil, 0 }
