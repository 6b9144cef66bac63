// Package boot is `hvlab boot`: an unmodified Linux kernel under /dev/kvm as the
// guest of a sim.Host, with its console, its VMBus conversation and its sockets.
//
// Read boot.go for the course of a run, care.go for what the host does to a
// guest that is up, console.go for the serial port, advice.go for what is said
// when something is missing.
package boot
