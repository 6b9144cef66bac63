package services

import (
	"context"
	"encoding/binary"
	"fmt"
)

// A Shutdown asks the guest to power off.
type Shutdown struct{ *Service }

// NewShutdown returns the shutdown service.
func NewShutdown() *Shutdown {
	return &Shutdown{newService("shutdown",
		"0e0b6031-5213-4934-818b-38d90ced39db", "b6650ff7-33bc-4840-8048-e0676786f393",
		Version{3, 2}, Version{3, 1}, Version{3, 0}, Version{1, 0})}
}

// Request body: reason, timeout in seconds, flags, then a message for the
// console. Flags bit 0 forces applications to close.
const (
	shutdownBytes        = 12 + 2048
	reasonPlanned uint32 = 0x80000000
)

// PowerOff asks for an orderly shutdown and returns when the guest has agreed to
// it; the guest goes down afterwards.
func (s *Shutdown) PowerOff(ctx context.Context) error {
	body := make([]byte, shutdownBytes)
	binary.LittleEndian.PutUint32(body[0:], reasonPlanned)
	w, err := s.request(kindShutdown, body)
	if err != nil {
		return err
	}
	select {
	case r := <-w:
		switch {
		case r.err != nil:
			return r.err
		case r.header.Status != 0:
			return &MessageError{fmt.Sprintf("shutdown refused with status %#x", r.header.Status)}
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("services: shutdown: %w", ctx.Err())
	}
}
