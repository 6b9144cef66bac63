// Package vsockvm asks real kernels what their sockets do: the script run boots a
// stock Debian kernel in QEMU's software emulation, with AF_VSOCK's loopback
// transport, in a few seconds and without privileges beyond apt-get.
//
//	internal/vsockvm/run                       hvlab conform and the tests of hvsock/native that need real sockets
//	internal/vsockvm/run -k 6.12               on another kernel
//	internal/vsockvm/run -- ./program -flag    any static program
//	internal/vsockvm/run -g                    hv_sock of a kernel that is attached to our host (minutes)
//
// The observations are compared with the simulator and with testdata/observed;
// -u records them there.
//
// A machine of the first kind has no Hyper-V: it shows what Linux' socket layer
// does over the transport that carries bytes within one machine. With -g it is
// hv_sock itself: internal/kerneltest boots the kernel under sim/kvmguest, and
// package remote lends its sockets to the suite, which runs beside our host.
package vsockvm
