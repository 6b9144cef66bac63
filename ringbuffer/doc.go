// Package ringbuffer is one VMBus ring: packets in guest pages, one writer, one
// reader, one direction.
//
// # The ring
//
// A ring is a list of 4096-byte pages. The first is the control page, the rest
// are the data area, a byte array in which everything is placed modulo its size:
//
//	pages[0]   write index   where the writer puts the next packet   (writer's)
//	           read index    the oldest byte not yet given back      (reader's)
//	           mask          non-zero: do not signal new packets     (reader's)
//	           pending size  bytes the writer waits for, or 0        (writer's)
//	           feature word  bit 0: the pending size is honoured     (writer's)
//	pages[1:]  16-byte descriptor | ranges | payload | padding | 8-byte footer, ...
//
// Equal indices mean empty, so one granule of 8 bytes always stays free. A
// channel has two rings, guest to host and host to guest; each end is the
// writer of one and the reader of the other.
//
// # Use
//
// The writer stages packets with Append and publishes them together with
// Commit. The reader looks with Peek (or Hold and Held, where nanoseconds
// matter), takes with CopyPayload or Next, steps on with Advance, and gives the
// space back with Commit. Either Commit only says
// whether the other end must be signalled; doing that, and sleeping, is the
// caller's part, and so is the lock that makes it the only writer or reader.
// Revert on either side undoes everything since the last Commit.
//
// # Signals and sleep
//
// A signal is an edge without data, and expensive, so both rules keep it rare.
// New packets are signalled only if the ring was empty and the mask is clear.
// Freed space is signalled only if it crosses the pending size. Each rule has a
// counterpart that must not be left out, or a wake-up is lost for ever: before
// sleeping, look again.
//
//	reader: Commit (or Unmask), then Readable (or Unmask's answer), then sleep
//	writer: SetPending stores the size, looks again and tells whether to sleep
//
// # Order
//
// Control words are only accessed with sync/atomic, data only plainly. Go's
// atomics are sequentially consistent and order the plain accesses around them,
// so the program order is the memory order, and these orders are what the
// protocol needs (the names are those of ringbuffer.md, section 9):
//
//	W1 packet bytes, then write index        R1 write index, then packet bytes
//	W2 read index, then overwriting          R2 packet bytes, then read index
//	W3 write index, then mask, read index    R3 mask = 0, then write index
//	W4 pending size, then read index         R5 read index, then pending size, write index
//	                                         R6 read index, then write index
//
// The lower pairs are Dekker's: each end stores what the other loads, before it
// loads what the other stores. At least one of them sees the other's store, so
// either the one about to sleep notices, or the other one signals.
//
// # Distrust
//
// The peer can change any byte at any time. A shared word is loaded once per
// decision and checked in the copy; an end never reads its own index back.
// What breaks a rule is a *CorruptError, matching vmbus.ErrProtocol, after which
// that end is dead: there is no frame marker to find the place again.
package ringbuffer
