package demo

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A file that may not be read. Root may read everything, so root's thread
// becomes somebody else for the file system, which is per thread on Linux.
func TestOpenUnreadable(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, nil, 0))
	if os.Geteuid() == 0 {
		const nobody = 65534
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		require.NoError(t, syscall.Setfsuid(nobody))
		defer func() { require.NoError(t, syscall.Setfsuid(0)) }()
	}
	_, err := Open(name)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.EqualError(t, err, name+": you may not read this file")
}
