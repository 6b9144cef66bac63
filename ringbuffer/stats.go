package ringbuffer

// Stats counts what one end of a ring did. The counters are plain words of
// their owner, which keeps them always on and almost free. Like every other
// method, Stats must be called under the lock that makes its caller the only
// reader or the only writer; a sleeping end does not hold that lock, so an
// observer never waits for the peer.
type Stats struct {
	Packets    uint64 // published packets
	Bytes      uint64 // ring bytes of those packets: descriptors, padding and footers included
	Signals    uint64 // commits that told the caller to signal
	Suppressed uint64 // commits that needed no signal
	FullWaits  uint64 // writer: times SetPending found no room
	PeakBytes  uint64 // most unread bytes this end ever saw in the ring
}
