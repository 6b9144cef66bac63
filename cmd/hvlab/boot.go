package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/hvlab/hvlab/cmd/hvlab/internal/boot"
	"github.com/hvlab/hvlab/sim/kvmguest"
	"github.com/hvlab/hvlab/vmbus"
)

// bootVerb is `hvlab boot`.
type bootVerb struct {
	Kernel     string `required:"" placeholder:"FILE" help:"Linux kernel for x86-64: a bzImage (vmlinuz) or an ELF vmlinux."`
	Initrd     string `placeholder:"FILE" help:"Initramfs; it brings the modules hv_vmbus, vsock and hv_sock if they are not built in."`
	Append     string `placeholder:"LINE" help:"The whole kernel command line, instead of '${kernel_append}'."`
	Mem        size   `default:"512M" placeholder:"512M" help:"RAM (${default})."`
	CPUs       int    `name:"cpus" default:"1" placeholder:"N" help:"Virtual processors (${default})."`
	MaxVersion string `placeholder:"4.1" help:"Newest VMBus version that the host serves."`
	Bridge     string `placeholder:"PATH" help:"Show the guest's ports as Unix sockets: PATH to reach them, PATH_PORT to be reached."`
	Reboot     bool   `help:"Boot again when the guest resets itself, instead of ending."`
	Verbose    bool   `short:"v" help:"Print every VMBus control message in one line on stderr."`
}

// Help is the long text of `hvlab boot -h`.
func (bootVerb) Help() string {
	return `An unmodified Linux kernel boots under /dev/kvm and finds a Hyper-V around it:
the same host that the simulated guests of this program attach to. Its serial
console is stdout and stdin. Ctrl-C asks it to shut down, a second Ctrl-C stops it.

The host offers heartbeat, shutdown and time synchronisation (hv_utils in the
guest). With -bridge, programs on this machine talk to the guest's Hyper-V
sockets (AF_VSOCK in the guest, whose host is CID 2); see hvlab bridge -h.

This needs Linux on x86-64 with /dev/kvm and a processor that shows vmx or svm.
Elsewhere internal/kerneltest/run boots a kernel in a machine that QEMU emulates.

Example, in this repository, with Debian's cloud kernel and busybox, and an echo
service on port 5000 of the guest (internal/kerneltest/run has the same for CI):

    sudo apt-get install busybox-static cpio xz-utils
    K=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ {print $2; exit}')
    apt-get download "$K" && dpkg -x "$K"_*.deb k
    mkdir -p i/bin i/proc i/dev i/m && cp /bin/busybox i/bin/ && ln -s busybox i/bin/sh
    for m in hv_vmbus vsock hv_sock hv_utils; do
        find k -name "$m.ko*" -exec cp {} i/m/ \; ; done; unxz -q i/m/*.xz 2>/dev/null
    CGO_ENABLED=0 go build -o i/bin/agent ./internal/kerneltest/agent
    cat >i/init <<'END'
    #!/bin/busybox sh
    export PATH=/bin
    busybox mount -t proc none /proc; busybox mount -t devtmpfs none /dev
    for m in hv_vmbus vsock hv_sock hv_utils; do busybox insmod /m/$m.ko; done
    agent echo:5000 & exec busybox sh
    END
    chmod +x i/init && (cd i && find . | cpio -o -H newc) >initrd
    hvlab boot -kernel k/boot/vmlinuz-* -initrd initrd -bridge /tmp/guest -v

Then, on this machine:

    (echo CONNECT 5000; cat) | socat - UNIX-CONNECT:/tmp/guest
`
}

// A size is a number of bytes with a unit, as in 512M.
type size int64

// UnmarshalText reads 512M, 1G or 524288K.
func (s *size) UnmarshalText(text []byte) error {
	units := map[byte]uint{'K': 10, 'M': 20, 'G': 30}
	t := strings.ToUpper(string(text))
	if t == "" {
		return fmt.Errorf("a size is needed, such as 512M")
	}
	shift, ok := units[t[len(t)-1]]
	n, err := strconv.ParseUint(t[:len(t)-1], 10, 32)
	if !ok || err != nil {
		return fmt.Errorf("%q is no size; write a number and K, M or G, as in 512M", text)
	}
	*s = size(n << shift)
	return nil
}

// Run boots the kernel.
func (v *bootVerb) Run(ctx context.Context, o output) error {
	version, err := busVersion(v.MaxVersion)
	if err != nil {
		return err
	}
	if v.CPUs < 1 || v.Mem < 1 {
		return fmt.Errorf("a machine needs memory and at least one processor: -mem 512M -cpus 1")
	}
	restore := consoleTerminal(os.Stdin)
	defer restore()
	interrupts := make(chan os.Signal, 2) // two matter
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	// The first interrupt ends main's context, but not the guest.
	return boot.Run(context.WithoutCancel(ctx), boot.Options{
		Kernel: v.Kernel, Initrd: v.Initrd, Append: v.Append, MemoryBytes: int64(v.Mem), CPUs: v.CPUs,
		MaxVersion: version, Bridge: v.Bridge, Reboot: v.Reboot, Verbose: v.Verbose,
		In: os.Stdin, Out: o.out, Err: o.err, Interrupts: interrupts,
	})
}

// kernelAppend is the default kernel command line, for the help text.
const kernelAppend = kvmguest.DefaultAppend

// busVersion reads a VMBus version; "" is 0, the newest there is.
func busVersion(text string) (vmbus.Version, error) {
	if text == "" {
		return 0, nil
	}
	version, err := vmbus.ParseVersion(text)
	if err != nil {
		var known []string
		for _, v := range vmbus.Versions() {
			known = append(known, v.String())
		}
		return 0, fmt.Errorf("VMBus has no version %q; there are %s", text, strings.Join(known, ", "))
	}
	return version, nil
}
