package boot

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/sim/kvmguest"
	"github.com/stretchr/testify/require"
)

// What cannot even begin says what to do, on every system.
func TestCannotBegin(t *testing.T) {
	dir := t.TempDir()
	kernel := filepath.Join(dir, "kernel")
	require.NoError(t, os.WriteFile(kernel, bytes.Repeat([]byte("x"), 4096), 0o600))
	for _, c := range []struct {
		o       Options
		message string
		need    bool // only where KVM guests exist at all
	}{
		{Options{}, "no kernel image given", false},
		{Options{Kernel: kernel, MemoryBytes: 1 << 20}, "outside 32 to 3072 MiB", false},
		{Options{Kernel: kernel, CPUs: 99}, "outside 1 to 16", false},
		{Options{Kernel: kernel}, "hvlab boot -h shows where a kernel and an initramfs that work come from", true},
		{Options{Kernel: filepath.Join(dir, "none")}, "none", true},
	} {
		c.o.Out, c.o.Err = &bytes.Buffer{}, &bytes.Buffer{}
		err := Run(t.Context(), c.o)
		if c.need && errors.Is(err, errors.ErrUnsupported) {
			continue // the system is the first thing to say
		}
		require.ErrorContains(t, err, c.message)
	}
}

// Every error of the monitor that a user can do something about says what.
func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&kvmguest.ImageError{Path: "k", Problem: "truncated"}, "hvlab boot -h"},
		{&kvmguest.MemoryError{HaveBytes: 32 << 20, NeedBytes: 68 << 20}, "try -mem 192M"},
		{&kvmguest.CrashError{Reason: "triple fault"}, `boot with -append "console=ttyS0 earlyprintk=ttyS0 panic=-1"`},
		{&kvmguest.KVMError{Request: "KVM_CREATE_VM", Err: os.ErrPermission}, "dmesg"},
	} {
		got := advise(c.err)
		require.ErrorIs(t, got, c.err, "the cause stays")
		require.ErrorContains(t, got, c.want)
	}
	plain := errors.New("x")
	require.Equal(t, plain, advise(plain))
}

// The monitor's statistics are for -v; an unknown hypercall is for everybody.
func TestNotes(t *testing.T) {
	var b bytes.Buffer
	n := &notes{w: &b}
	n.monitor("exits to the monitor: mmio 0")
	n.monitor("unknown hypercall 0x1")
	require.Equal(t, "hvlab: the virtual machine: unknown hypercall 0x1\n", b.String())
	n.verbose = true
	n.monitor("exits to the monitor: mmio 0")
	require.Contains(t, b.String(), "mmio 0")
}

// A slowConsole takes nothing for a while, then a few bytes at a time.
type slowConsole struct {
	refuse int
	got    []byte
}

func (c *slowConsole) Type(p []byte) int {
	if c.refuse--; c.refuse >= 0 {
		return 0
	}
	n := min(len(p), 3)
	c.got = append(c.got, p[:n]...)
	return n
}

// What is typed before the guest listens waits for it.
func TestTypeInto(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := strings.Repeat("0123456789", 100)
		c := &slowConsole{refuse: 50}
		typeInto(t.Context(), c, strings.NewReader(text))
		require.Equal(t, text, string(c.got))

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		typeInto(ctx, &slowConsole{refuse: 1 << 30}, strings.NewReader(text)) // returns: ctx ends it
	})
}
