// Package vsockvm runs programs on a real AF_VSOCK: the script run boots a stock
// Debian kernel in QEMU's software emulation, with the loopback transport, in a
// few seconds and without privileges beyond apt-get.
//
//	internal/vsockvm/run                       the tests of hvsock/native that need real sockets
//	internal/vsockvm/run -k 6.12               on another kernel
//	internal/vsockvm/run -- ./program -flag    any static program
//
// Such a machine has no Hyper-V: what it shows is what Linux' socket layer does,
// over the transport that carries bytes within one machine. For hv_sock itself
// see internal/kerneltest.
package vsockvm
