package kvmguest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNewChecksBeforeItNeedsKVM: a bad option or, where there may be a KVM, a bad
// image is reported as such on every machine.
func TestNewChecksBeforeItNeedsKVM(t *testing.T) {
	_, err := New(Options{})
	var option *OptionError
	require.ErrorAs(t, err, &option)
}

// TestProbeSaysWhatToDo: one line, and New agrees with it.
func TestProbeSaysWhatToDo(t *testing.T) {
	reason, ok := Probe()
	if ok {
		require.Empty(t, reason)
		return
	}
	require.NotEmpty(t, reason)
	require.NotContains(t, reason, "\n")
	kernel := filepath.Join(t.TempDir(), "vmlinux")
	require.NoError(t, os.WriteFile(kernel, tinyELF(0x1000000, []byte{0xF4}, 1), 0o600))
	_, err := New(Options{Kernel: kernel})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, reason)
}
