package registry

import (
	"fmt"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/vmbus"
)

// A SyntaxError reports a .reg file that cannot be read.
type SyntaxError struct {
	Line   int // from 1; 0 if it is about the whole file
	Reason string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return "registry: " + e.Reason
	}
	return fmt.Sprintf("registry: line %d: %s", e.Line, e.Reason)
}

// Is matches vmbus.ErrState: the caller's file is at fault.
func (e *SyntaxError) Is(target error) bool { return target == vmbus.ErrState }

// A ServiceError reports a service that cannot be registered, or is not.
type ServiceError struct {
	ID     uuid.UUID
	Reason string
}

func (e *ServiceError) Error() string { return fmt.Sprintf("registry: service %v: %s", e.ID, e.Reason) }

// Is matches vmbus.ErrState: the caller's misuse.
func (e *ServiceError) Is(target error) bool { return target == vmbus.ErrState }

// A DeniedError reports a bind or connect that the registry does not permit. It
// matches its errno.
type DeniedError struct {
	ID     uuid.UUID
	Op     string // "bind" or "connect"
	Reason string
	Errno  syscall.Errno // EACCES (Windows: WSAEACCES), or ECONNREFUSED for a disabled service
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("%s %v: %s: %v", e.Op, e.ID, e.Reason, e.Errno)
}

// Unwrap returns the errno.
func (e *DeniedError) Unwrap() error { return e.Errno }
