//go:build linux && (amd64 || arm64)

package guestmem

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// Values of the Linux user interface that package syscall does not have.
// Source: memfd_create(2), fcntl(2).
const (
	mfdCloexec      = 0x1
	mfdAllowSealing = 0x2
	fAddSeals       = 1033
	fSealSeal       = 0x1
	fSealShrink     = 0x2
	fSealGrow       = 0x4
)

// NewSharedFile returns a file of the given number of zeroed pages that exists
// only in memory (a memfd), for another process to map: hand it over with
// os/exec's ExtraFiles or over a Unix socket. Its size is sealed, so that no
// process can pull memory from under another. name is for people only.
func NewSharedFile(name string, pages int) (*os.File, error) {
	if pages <= 0 {
		return nil, &StateError{Op: "NewSharedFile", Reason: "a file has at least one page"}
	}
	cname, err := syscall.BytePtrFromString(name)
	if err != nil {
		return nil, fmt.Errorf("guestmem: memfd_create: %w", err)
	}
	fd, _, errno := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(cname)), mfdCloexec|mfdAllowSealing, 0)
	if errno != 0 {
		return nil, fmt.Errorf("guestmem: memfd_create: %w", errno)
	}
	f := os.NewFile(fd, name)
	if err := f.Truncate(int64(pages) * PageSize); err != nil {
		f.Close()
		return nil, fmt.Errorf("guestmem: sizing a memfd: %w", err)
	}
	if err := seal(f, fSealShrink|fSealGrow|fSealSeal); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// MapShared maps the whole file, shared with everybody who maps it too, as the
// guest pages from firstPFN on. The caller may close the file afterwards, and
// must call Close on the Region to unmap it.
//
// A memfd that allows sealing is sealed against shrinking. Any other file can be
// truncated by whoever may write it, after which an access to the lost pages
// kills this process: map only files of trusted writers.
func MapShared(f *os.File, firstPFN uint64) (*Region, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("guestmem: MapShared: %w", err)
	}
	if info.Size() <= 0 || info.Size()%PageSize != 0 {
		return nil, &StateError{Op: "MapShared", Reason: "the file is not a positive number of whole pages"}
	}
	// The result does not matter: ordinary files know no seals, and a file
	// whose seals are sealed is as its maker wanted it.
	_ = seal(f, fSealShrink)
	mem, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	runtime.KeepAlive(f)
	if err != nil {
		return nil, fmt.Errorf("guestmem: mmap: %w", err)
	}
	r, err := NewRegion(firstPFN, mem)
	if err != nil {
		_ = syscall.Munmap(mem)
		return nil, err
	}
	r.unmap = func() error { return syscall.Munmap(mem) }
	return r, nil
}

func seal(f *os.File, seals uintptr) error {
	_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), fAddSeals, seals)
	runtime.KeepAlive(f)
	if errno != 0 {
		return fmt.Errorf("guestmem: sealing a memfd: %w", errno)
	}
	return nil
}
