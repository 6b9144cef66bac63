#!/bin/busybox sh
# shellcheck shell=dash
# /init of the outer machine, which only exists to have a /dev/kvm: it loads KVM
# and runs the test binaries that internal/kerneltest/run put under /tests.
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev 2>/dev/null
$b mount -t tmpfs none /tmp
$b ifconfig lo 127.0.0.1 2>/dev/null
for module in irqbypass ccp kvm kvm-amd kvm-intel; do
	[ -f /modules/$module.ko ] && $b insmod /modules/$module.ko 2>/dev/null
done
for module in vsock vmw_vsock_virtio_transport_common vsock_loopback; do
	[ -f /modules/$module.ko ] && $b insmod /modules/$module.ko 2>/dev/null
done
# shellcheck disable=SC1091 # written by run: kernel, initrd, pattern
. /tests/environment
export PATH=/bin HOME=/tmp TMPDIR=/tmp
# With one processor Go would run nothing beside a virtual processor until its
# monitor thread has slept and taken it away; with more the kernel decides.
export GOMAXPROCS=4

for dir in /tests/*/; do
	name=$($b basename "$dir")
	echo "kerneltest: begin $name"
	(cd "$dir" && ./test -test.v -test.run "$KERNELTEST_PATTERN" -test.timeout "${KERNELTEST_SECONDS}s" 2>&1)
	echo "kerneltest: end $name status $?"
done
# What the tests want to keep goes out through the second serial port.
if [ -n "$($b ls -A "$KERNELTEST_OUT" 2>/dev/null)" ]; then
	$b stty -F /dev/ttyS1 raw 2>/dev/null
	$b tar -C "$KERNELTEST_OUT" -cf - . >/dev/ttyS1
fi
$b sync
$b poweroff -f
