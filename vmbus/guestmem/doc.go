// Package guestmem is guest physical memory: an array of 4 KiB pages that a
// guest owns and a host reads and writes.
//
// Everything two ends of a bus share lives in such pages: ring buffers, the
// SynIC's message and event-flag pages, interrupt and monitor pages. A guest
// names a page by its PFN (guest physical address divided by 4096); the host
// resolves the name once, through [Memory], and holds a [*Page] from then on:
//
//	GPADL page list --Resolve--> []*Page --> a ring over those pages
//
// There are three kinds of memory, and code above cannot tell them apart:
//
//   - [Heap]: pages for a simulated guest, handed out with PFNs as scattered as
//     those of a real machine that has been up for a while
//   - [Region]: memory somebody else owns, such as the RAM of a virtual machine
//   - [MapShared]: a file or memfd that two processes map (Linux)
//
// # The rules of shared memory
//
// A page has two kinds of words. Words that one side writes while the other
// reads (ring indices, interrupt masks, message types, flag bits) are accessed
// only through the atomic methods, at aligned offsets; they are sequentially
// consistent, which is what every "store mine, then look at yours" protocol of
// VMBus needs. Everything else is plain bytes, reached through [Page.Bytes], and
// is handed over by such a word. The race detector understands both.
//
// Multi-byte words are little-endian on the wire. The atomic methods use the
// CPU's order, so this package is meant for little-endian CPUs, which all
// supported platforms are.
//
// Offsets come from our own code, never from a peer, so a misaligned or
// out-of-range offset panics. PFNs come from peers, so a PFN nobody backs is an
// error that matches [ErrNoPage].
//
// This is the only package of the module that imports unsafe.
package guestmem
