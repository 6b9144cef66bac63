#!/bin/busybox sh
# shellcheck shell=dash
# /init of the machine: loads AF_VSOCK with its loopback and runs every job that
# run put under /jobs, with lines around its output by which run finds it.
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev 2>/dev/null
$b mount -t tmpfs none /tmp
$b ifconfig lo 127.0.0.1 2>/dev/null
for module in vsock vmw_vsock_virtio_transport_common vsock_loopback; do
	$b insmod /modules/$module.ko || echo "vsockvm: $module does not load"
done
export PATH=/bin HOME=/tmp TMPDIR=/tmp
echo "vsockvm: kernel $($b uname -r)"
for dir in /jobs/*/; do
	name=$($b basename "$dir")
	echo "vsockvm: begin $name"
	eval "set -- $($b cat "$dir/command")"
	(cd "$dir" && "$@" 2>/tmp/stderr)
	status=$?
	echo # the program may have left its last line open
	echo "vsockvm: end $name status $status"
	$b cat /tmp/stderr
done
$b sync
$b poweroff -f
