//go:build !linux || !(amd64 || arm64)

package guestmem

import "os"

// NewSharedFile needs Linux; elsewhere it returns ErrNotSupported.
func NewSharedFile(string, int) (*os.File, error) { return nil, ErrNotSupported }

// MapShared needs Linux; elsewhere it returns ErrNotSupported.
func MapShared(*os.File, uint64) (*Region, error) { return nil, ErrNotSupported }
