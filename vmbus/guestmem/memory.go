package guestmem

import (
	"errors"
	"fmt"
)

var (
	// ErrNoPage says that a PFN is not backed by memory. PFNs come from
	// guests, so to a host this is the peer's fault.
	ErrNoPage = errors.New("guestmem: no such page")
	// ErrNoMemory says that a Heap is at its limit.
	ErrNoMemory = errors.New("guestmem: out of guest memory")
	// ErrState says that the caller misused this package.
	ErrState = errors.New("guestmem: misuse")
	// ErrNotSupported says that this operating system has no such memory.
	ErrNotSupported = errors.New("guestmem: not supported on this platform")
)

// Memory is guest physical memory as a host sees it.
//
// Page returns the page with the given PFN, the same *Page each time, or an
// error that matches ErrNoPage. It may be called from any goroutine.
type Memory interface {
	Page(pfn uint64) (*Page, error)
}

// Resolve looks up a list of PFNs, such as a GPADL's, in order. It fails as a
// whole, with an error that matches ErrNoPage, if one of them is not backed. The
// same PFN may occur more than once.
func Resolve(m Memory, pfns []uint64) ([]*Page, error) {
	pages := make([]*Page, len(pfns))
	for i, pfn := range pfns {
		p, err := m.Page(pfn)
		if err != nil {
			return nil, fmt.Errorf("page %d of %d: %w", i, len(pfns), err)
		}
		pages[i] = p
	}
	return pages, nil
}

// A PageError reports a PFN that no memory backs.
type PageError struct {
	PFN uint64
}

func (e *PageError) Error() string { return fmt.Sprintf("guestmem: PFN %#x is not backed", e.PFN) }

// Is matches ErrNoPage.
func (e *PageError) Is(target error) bool { return target == ErrNoPage }

// A LimitError reports an allocation that would exceed a Heap's limit.
type LimitError struct {
	Pages, InUse, Limit int // in pages
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("guestmem: cannot allocate %d pages: %d of %d are in use", e.Pages, e.InUse, e.Limit)
}

// Is matches ErrNoMemory.
func (e *LimitError) Is(target error) bool { return target == ErrNoMemory }

// A StateError reports a misuse of this package.
type StateError struct {
	Op     string // the method or function
	Reason string
}

func (e *StateError) Error() string { return fmt.Sprintf("guestmem: %s: %s", e.Op, e.Reason) }

// Is matches ErrState.
func (e *StateError) Is(target error) bool { return target == ErrState }
