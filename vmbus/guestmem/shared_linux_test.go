//go:build linux && (amd64 || arm64)

package guestmem_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

func sharedFile(t *testing.T, pages int) *os.File {
	f, err := guestmem.NewSharedFile("guestmem-test", pages)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

func mapShared(t *testing.T, f *os.File, firstPFN uint64) *guestmem.Region {
	r, err := guestmem.MapShared(f, firstPFN)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// Two mappings of one file, as two processes have them, are one memory: the
// bits of both sides add up and each sees the other's.
func TestTwoMappingsSeeEachOther(t *testing.T) {
	f := sharedFile(t, 4)
	one, other := mapShared(t, f, 0x100), mapShared(t, f, 0x9000)
	p, err := one.Page(0x102)
	require.NoError(t, err)
	q, err := other.Page(0x9002)
	require.NoError(t, err)
	require.NotSame(t, &p.Bytes()[0], &q.Bytes()[0], "two addresses, one memory")

	const flags = 32 * 16
	var edges [2]int
	var wg sync.WaitGroup
	for side, page := range []*guestmem.Page{p, q} {
		wg.Go(func() {
			for n := range flags {
				bit := uint32(1) << (n % 32)
				if page.Or32(n/32*4, bit)&bit == 0 {
					edges[side]++
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, flags, edges[0]+edges[1], "each flag rises once, on one of the two sides")
	require.Equal(t, bytes.Repeat([]byte{0xFF}, flags/8), q.Bytes()[:flags/8])

	copy(p.Bytes()[1000:], "plain bytes too")
	require.Equal(t, "plain bytes too", string(q.Bytes()[1000:1015]))
}

const childVariable = "GUESTMEM_TEST_CHILD"

// The real thing: another process maps the memfd and answers over it.
func TestSharedWithAnotherProcess(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		answer(t)
		return
	}
	f := sharedFile(t, 2)
	r := mapShared(t, f, 1)
	p, err := r.Page(2)
	require.NoError(t, err)
	p.Store32(0, 7)
	copy(p.Bytes()[64:], "ping")

	child := exec.Command(os.Args[0], "-test.run=^TestSharedWithAnotherProcess$")
	child.Env = append(os.Environ(), childVariable+"=1")
	child.ExtraFiles = []*os.File{f} // descriptor 3
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)

	require.Equal(t, uint32(8), p.Load32(0), "the child swapped 7 for 8")
	require.Equal(t, "pong", string(p.Bytes()[64:68]))
}

// answer is what the other process does.
func answer(t *testing.T) {
	f := os.NewFile(3, "inherited")
	r := mapShared(t, f, 0x500) // its PFNs are its own business
	require.NoError(t, f.Close(), "a mapping outlives the file")
	p, err := r.Page(0x501)
	require.NoError(t, err)
	require.Equal(t, "ping", string(p.Bytes()[64:68]))
	copy(p.Bytes()[64:], "pong")
	require.True(t, p.CompareAndSwap32(0, 7, 8))
}

// A process that could cut the file short could kill the other one.
func TestSharedFileCannotShrink(t *testing.T) {
	f := sharedFile(t, 2)
	require.ErrorIs(t, f.Truncate(guestmem.PageSize), syscall.EPERM)
	require.ErrorIs(t, f.Truncate(3*guestmem.PageSize), syscall.EPERM, "a grown file would be mapped in part")
}

func TestMapSharedFiles(t *testing.T) {
	open := func(bytes int64) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "memory"))
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() }) // one is closed before
		require.NoError(t, f.Truncate(bytes))
		return f
	}
	for _, size := range []int64{0, 1, guestmem.PageSize + 1} {
		_, err := guestmem.MapShared(open(size), 0)
		require.ErrorIs(t, err, guestmem.ErrState, "%d bytes are not whole pages", size)
	}
	_, err := guestmem.MapShared(open(guestmem.PageSize), 1<<60)
	require.ErrorIs(t, err, guestmem.ErrState, "the PFN does not exist")

	f := open(guestmem.PageSize)
	r, err := guestmem.MapShared(f, 0)
	require.NoError(t, err, "an ordinary file will do")
	p, err := r.Page(0)
	require.NoError(t, err)
	p.Store32(0, 0x64636261)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close(), "closing twice is harmless")
	content, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.Equal(t, "abcd", string(content[:4]))

	_, err = guestmem.NewSharedFile("none", 0)
	require.ErrorIs(t, err, guestmem.ErrState)
	_, err = guestmem.NewSharedFile("nul\x00", 1)
	require.ErrorIs(t, err, syscall.EINVAL)
	require.NoError(t, f.Close())
	_, err = guestmem.MapShared(f, 0)
	require.ErrorIs(t, err, os.ErrClosed)
}

// The RAM of a virtual machine is described as it is used: 4 GiB of it must not
// cost megabytes before the guest has named a page.
func TestLargeRegionIsDescribedLazily(t *testing.T) {
	const ramBytes = 4 << 30
	mem, err := syscall.Mmap(-1, 0, ramBytes, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS|syscall.MAP_NORESERVE)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Munmap(mem)) })

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := guestmem.NewRegion(0, mem)
	require.NoError(t, err)
	for _, pfn := range []uint64{0, 1 << 10, ramBytes/guestmem.PageSize - 1} {
		p, err := r.Page(pfn)
		require.NoError(t, err)
		p.Store32(0, 1)
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(128<<10), "bytes of description")
	require.Equal(t, ramBytes/guestmem.PageSize, r.Pages())
}
