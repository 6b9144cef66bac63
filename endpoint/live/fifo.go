package live

// A fifo is a first-in first-out list that reuses its memory: the queues here are
// empty most of the time and never long.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

// push appends v. A queue that never runs empty moves down instead of growing.
func (q *fifo[T]) push(v T) {
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

// front is the oldest value, which pop removes; it must not be called when empty.
func (q *fifo[T]) front() *T { return &q.items[q.head] }

func (q *fifo[T]) pop() {
	var zero T
	q.items[q.head] = zero
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
}

// all is what the queue holds, oldest first; it must not be kept.
func (q *fifo[T]) all() []T { return q.items[q.head:] }

func (q *fifo[T]) clear() { q.items, q.head = nil, 0 }
