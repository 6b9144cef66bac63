package kvmguest

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// A kernelImage is a kernel file after every length in it was checked against
// the file.
type kernelImage struct {
	segments []segment
	entry    uint64 // guest physical address of the 64-bit entry
	end      uint64 // first byte after what the kernel uses before it reads the memory map

	setupHeader        []byte // bytes of the image from setupHeaderAt on; nil for an ELF image
	initrdMax          uint64 // highest address that the last byte of an initramfs may have
	maxCommandLineSize uint64 // bytes without the terminating zero
}

// A segment is one piece of the kernel: data, followed by zeroes up to memBytes.
type segment struct {
	address  uint64
	data     []byte
	memBytes uint64
}

// readImage reads the file at path, which must not be empty or larger than
// maxImageBytes. The error is an *ImageError or an *os.PathError.
func readImage(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("kvmguest: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxImageBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("kvmguest: %w", err)
	case len(b) == 0:
		return nil, &ImageError{path, "the file is empty"}
	case len(b) > maxImageBytes:
		return nil, &ImageError{path, fmt.Sprintf("the file is larger than %d MiB", maxImageBytes>>20)}
	}
	return b, nil
}

// parseKernel recognizes a bzImage or an ELF vmlinux. path is for the error,
// which is always an *ImageError.
func parseKernel(path string, b []byte) (*kernelImage, error) {
	var (
		img     *kernelImage
		problem string
	)
	switch {
	case bytes.HasPrefix(b, elfMagic):
		img, problem = parseELF(b)
	case hasBootFlag(b):
		img, problem = parseBzImage(b)
	case bytes.HasPrefix(b, []byte{0x1F, 0x8B}), bytes.HasPrefix(b, []byte{0x28, 0xB5, 0x2F, 0xFD}), bytes.HasPrefix(b, []byte{0xFD, '7', 'z'}):
		problem = "the file is compressed: give the bzImage (vmlinuz) or decompress it to vmlinux"
	default:
		problem = "neither a bzImage (vmlinuz) nor an x86-64 ELF vmlinux"
	}
	if problem != "" {
		return nil, &ImageError{path, problem}
	}
	return img, nil
}

// checkSegments refuses segments that would lie under 1 MiB, where the boot
// structures are, or wrap around. It returns the first byte after all of them.
func checkSegments(segments []segment) (end uint64, problem string) {
	for _, s := range segments {
		switch {
		case s.address < highMemory:
			return 0, fmt.Sprintf("a segment at %#x lies under 1 MiB", s.address)
		case s.address > maxMemoryBytes || s.memBytes > maxMemoryBytes:
			return 0, fmt.Sprintf("a segment at %#x of %#x bytes lies above %d GiB", s.address, s.memBytes, maxMemoryBytes>>30)
		}
		end = max(end, s.address+s.memBytes)
	}
	return end, ""
}
