package ringbuffer

import (
	"fmt"
	"sync"

	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
)

// A Requestor matches completions to the requests they answer. A transaction id
// is the number of a table slot plus one, never an address and never 0, which
// Hyper-V keeps for unsolicited messages; so whatever id a hostile peer sends
// back, the worst it can do is complete a request that is really waiting.
//
// Use: Begin before Append, with the id in the Header; Abandon if Append fails
// or the channel turns out to be gone; Complete with the id of a Completion.
// It has its own lock, since requests leave under the writer's and completions
// arrive under the reader's.
// Source: Linux drivers/hv/channel.c, struct vmbus_requestor (the idea).
type Requestor[T any] struct {
	mu      sync.Mutex
	limit   int
	slots   []slot[T]
	free    int    // first free slot + 1, or 0
	waiting int    // slots in use
	dropped uint64 // completions nobody waits for
}

type slot[T any] struct {
	value T
	used  bool
	next  int // next free slot + 1, or 0
}

// NewRequestor makes a table for at most limit requests at a time;
// 0 means DefaultTransactions. The table grows as requests need it.
func NewRequestor[T any](limit int) *Requestor[T] {
	if limit <= 0 {
		limit = DefaultTransactions
	}
	return &Requestor[T]{limit: limit}
}

// A LimitError says that too many requests wait already: try again after a
// completion. Nothing must be published.
type LimitError struct{ Limit int }

func (e *LimitError) Error() string {
	return fmt.Sprintf("ringbuffer: %d requests are waiting for their completion", e.Limit)
}

// Is matches ErrFull: like a full ring, the condition passes.
func (e *LimitError) Is(target error) bool { return target == ErrFull }

// A TransactionError reports a completion whose id was never given out, or was
// completed already. Drop the packet; the channel lives.
type TransactionError struct{ ID uint64 }

func (e *TransactionError) Error() string {
	return fmt.Sprintf("ringbuffer: completion of transaction %#x, which nobody waits for", e.ID)
}

// Is matches vmbus.ErrProtocol: the peer's fault.
func (e *TransactionError) Is(target error) bool { return target == vmbus.ErrProtocol }

// Begin reserves an id for a request and keeps value for its completion.
// Error: *LimitError (ErrFull).
func (q *Requestor[T]) Begin(value T) (id uint64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := q.free - 1
	if at >= 0 {
		q.free = q.slots[at].next
	} else {
		if len(q.slots) >= q.limit {
			return 0, &LimitError{Limit: q.limit}
		}
		at = len(q.slots)
		q.slots = append(q.slots, slot[T]{})
	}
	q.slots[at] = slot[T]{value: value, used: true}
	q.waiting++
	return uint64(at) + 1, nil
}

// Complete ends the request id and returns its value. An id nobody waits for is
// counted and gives a *TransactionError.
func (q *Requestor[T]) Complete(id uint64) (T, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	value, ok := q.take(id)
	if !ok {
		q.dropped++
		return value, &TransactionError{ID: id}
	}
	return value, nil
}

// Abandon gives an id back that was not published, or whose channel is gone.
func (q *Requestor[T]) Abandon(id uint64) (T, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.take(id)
}

func (q *Requestor[T]) take(id uint64) (value T, ok bool) {
	if id == 0 && !putback.On(putback.RG15) || id > uint64(len(q.slots)) || !q.slots[id-1].used && !putback.On(putback.RG16) {
		return value, false
	}
	value = q.slots[id-1].value
	q.slots[id-1] = slot[T]{next: q.free}
	q.free = int(id)
	q.waiting--
	return value, true
}

// Waiting is the number of requests without completion.
func (q *Requestor[T]) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// Dropped is the number of completions nobody waited for.
func (q *Requestor[T]) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}
