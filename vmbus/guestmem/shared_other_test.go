//go:build !linux || !(amd64 || arm64)

package guestmem_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

func TestSharedMemoryNeedsLinux(t *testing.T) {
	_, err := guestmem.NewSharedFile("none", 1)
	require.ErrorIs(t, err, guestmem.ErrNotSupported)
	_, err = guestmem.MapShared(nil, 0)
	require.ErrorIs(t, err, guestmem.ErrNotSupported)
}
