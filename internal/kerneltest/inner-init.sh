#!/bin/busybox sh
# shellcheck shell=dash
# /init of the inner guest, the real kernel under our monitor. The kernel command
# line says what to do:
#   hvlab.agent=ARGS   start the test agent with these arguments (commas become blanks)
#   hvlab.max=4.1      newest VMBus version that the guest may ask for
#   hvlab.do=SCRIPT    a shell command instead of the agent (commas become blanks)
# Every port write costs about a millisecond when nested, so it prints little.
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev 2>/dev/null

option() { # value of option $1 on the kernel command line, commas turned into blanks
	for word in $($b cat /proc/cmdline); do
		case "$word" in "$1="*) echo "${word#*=}" | $b tr ',' ' ' ;; esac
	done
}

echo "inner: $($b uname -r) runs /init"
max=$(option hvlab.max)
# shellcheck disable=SC2086 # the option is meant to be split
$b insmod /modules/hv_vmbus.ko ${max:+max_version=$(( (${max%.*} << 16) | ${max#*.} ))} || echo "inner: hv_vmbus failed"
for module in vsock hv_sock hv_utils; do
	$b insmod /modules/$module.ko || echo "inner: $module failed"
done

todo=$(option hvlab.do)
agent=$(option hvlab.agent)
if [ -n "$todo" ]; then
	eval "$todo"
elif [ -n "$agent" ]; then
	# shellcheck disable=SC2086
	/bin/agent $agent || echo "inner: agent ended with $?"
else
	$b dmesg | $b grep -i -e 'hyper-v' -e hyperv -e vmbus -e hv_ -e vsock
fi
echo "inner: done"
$b poweroff -f
