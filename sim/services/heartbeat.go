package services

import (
	"context"
	"encoding/binary"
	"fmt"
)

// A Heartbeat asks the guest whether it is alive.
type Heartbeat struct {
	*Service
	sequence uint64
}

// NewHeartbeat returns the heartbeat service.
func NewHeartbeat() *Heartbeat {
	return &Heartbeat{Service: newService("heartbeat",
		"57164f39-9115-4e78-ab55-382f3bd5422d", "fd149e91-82e0-4a7d-afa6-2a4166cbd7c0", Version{3, 0}, Version{1, 0})}
}

// Beat sends one heartbeat and returns the sequence number the guest answers
// with: one more than it was sent. Beat is for one goroutine at a time.
func (h *Heartbeat) Beat(ctx context.Context) (sequence uint64, err error) {
	body := make([]byte, 40) // u64 sequence, then 8 reserved words
	binary.LittleEndian.PutUint64(body, h.sequence)
	w, err := h.request(kindHeartbeat, body)
	if err != nil {
		return 0, err
	}
	select {
	case r := <-w:
		if r.err != nil {
			return 0, r.err
		}
		got := u64(r.body, 0)
		if got != h.sequence+1 {
			return got, &MessageError{fmt.Sprintf("heartbeat %d answered with %d", h.sequence, got)}
		}
		h.sequence = got + 1
		return got, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("services: heartbeat: %w", ctx.Err())
	}
}
