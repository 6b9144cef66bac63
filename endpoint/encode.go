package endpoint

import (
	"fmt"

	"github.com/hvlab/hvlab/internal/snapshot"
	"github.com/hvlab/hvlab/vmbus"
)

// A saved core is encoded as package snapshot describes: its kind is 1 for a host
// and 2 for a guest, its body the fields of hostSnapshot or guestSnapshot.
const (
	savedMagic   = "HVLABBUS"
	savedVersion = 2
	savedHead    = snapshot.HeadBytes
)

// MaxSavedBytes bounds a saved core.
const MaxSavedBytes = snapshot.MaxBytes

type savedKind uint8

const (
	savedHost  savedKind = 1
	savedGuest savedKind = 2
)

// A RestoreError reports saved bytes that cannot be restored. It matches
// vmbus.ErrProtocol: somebody else wrote them.
type RestoreError struct {
	Reason string
	Cause  error // may be nil
}

func (e *RestoreError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("endpoint: saved state: %s: %v", e.Reason, e.Cause)
	}
	return "endpoint: saved state: " + e.Reason
}

// Unwrap returns what went wrong below.
func (e *RestoreError) Unwrap() error { return e.Cause }

// Is makes a RestoreError match vmbus.ErrProtocol.
func (e *RestoreError) Is(target error) bool { return target == vmbus.ErrProtocol }

// seal encodes snapshot, a pointer to a struct.
func seal(kind savedKind, state any) ([]byte, error) {
	b, err := savedFormat(kind).Seal(state)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w: %w", err, vmbus.ErrState)
	}
	return b, nil
}

// unseal decodes b into snapshot, a pointer to a zero struct.
func unseal(kind savedKind, b []byte, state any) error {
	if err := savedFormat(kind).Open(b, state); err != nil {
		return &RestoreError{Reason: err.Error()}
	}
	return nil
}

func savedFormat(kind savedKind) snapshot.Format {
	return snapshot.Format{Magic: savedMagic, Version: savedVersion, Kind: uint8(kind)}
}
