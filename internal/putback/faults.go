package putback

// The rows of faults.md, section 1, in its order; each comment is what the switch
// of that row puts back.
const (
	None Fault = iota

	// Control plane, guest side.
	GC01 // a rescind leaves a pending open waiting for an OpenResult that never comes
	GC02 // a closed channel keeps its doorbell, so a late event flag reaches the old driver
	GC03 // a rescinded channel's ring GPADL is not torn down, and nothing of it comes back
	GC04 // removing a primary channel also forgets its sub-channels, whose rescinds then find a removed entry
	GC05 // every rescind of a known id counts as the first
	GC06 // the message slot is read again after it was freed, and that copy is used
	GC07 // a padding byte or the tail of a buffer keeps what was there before
	GC08 // only the message slot of one VP is looked at
	GC09 // an unload gives up after 10 s, and hands the shared pages out again
	GC10 // event flags raised on the old VP just before a move are not looked at again
	GC11 // statistics are read without looking whether the channel still has its ring
	GC12 // an offer that could not be handled is released, but stays in the tables
	GC13 // a call or a signal for an open channel does not ask whether the channel is open
	GC14 // the host does not signal after OpenResult, though its ring is not empty
	GC15 // an answer about a GPADL of a rescinded channel is ignored, and the channel never unlinked
	GC16 // pages that the host may still use are handed out again when the connection fails
	GC17 // the list of trusted interfaces is not looked at
	GC18 // unread bytes of a rescinded channel are kept as a view into the ring instead of a copy
	GC19 // every dropped message is a line of its own
	GC20 // an id is released although a ModifyChannel about it was not answered
	GC21 // an answer about an unknown GPADL is followed into nothing

	// Control plane, host side.
	HC01 // an incomplete GPADL outlives its channel
	HC02 // a message of the wrong direction is taken for impossible
	HC03 // offers are announced before the guest has asked for them
	HC04 // a reset waits for a device that is still opening
	HC05 // a message that finds the slot busy counts as sent
	HC06 // a device is asked again to let go of a GPADL it is already letting go of
	HC07 // a guest whose post was refused does not read either
	HC08 // what a guest asks while the device is stopped is dropped instead of held
	HC09 // a key that was rescinded but not released is offered again at once, under a new id
	HC10 // an offer that is not found is taken for impossible
	HC11 // an observer needs a version while channels are open
	HC12 // a GPADL on a rescinded channel is refused
	HC13 // a primary channel is rescinded before its sub-channels
	HC14 // an offset of the guest is used before it is compared with the pages there are
	HC15 // a malformed packet of a service ends the service
	HC16 // a post to an unknown connection id succeeds
	HC17 // a channel id of the guest is an index, unchecked

	// Rings and signalling.
	RG01 // the reader looks at the pending size before it frees space, and keeps quiet while its own mask is set
	RG02 // reading from a connection resets the pending size its writing side has stored
	RG03 // the writer signals every commit, not only the one into an empty ring
	RG04 // the reader does not look again after it has unmasked signals
	RG05 // the writer stores the interrupt mask too
	RG06 // the option to signal on any freed space does nothing
	RG07 // a reader loads a descriptor again after it was checked
	RG08 // taking the rings away from a connection a second time is not noticed
	RG09 // a descriptor's length may be smaller than its offset
	RG10 // a descriptor's length is not compared with what is in the ring
	RG11 // the least offset of a packet with ranges is not checked
	RG12 // a byte offset above 0xFFF is accepted, and a part of a list starts in the first range
	RG13 // a message is cast onto its buffer, which must be aligned
	RG14 // a ring offset is counted in pages of 64 KiB
	RG15 // transaction id 0 is looked up like any other
	RG16 // a completed transaction may be completed again

	// Hyper-V sockets.
	HV01 // the guest closes a socket's channel at once, without waiting for the rescind
	HV02 // the guest does not know TLConnectResult
	HV03 // the answer to a dial is matched by the service alone
	HV04 // a host dial that gives up does not withdraw its offer
	HV05 // an open that fails keeps its place in the listener's backlog
	HV06 // the default ring size is none
	HV07 // a dial does not ask whether there is a bus
	HV08 // a listener calls out with its own lock held
	HV09 // closing a channel waits for the control loop
	HV10 // a closed socket waits for its silent peer without any bound
	HV11 // what is unread when the channel goes is lost
	HV12 // the end of the stream is an I/O error
	HV13 // padding counts as readable
	HV14 // CloseWrite ends both directions
	HV15 // a Write of more than one packet fails
	HV16 // the length in a pipe header is believed
	HV17 // a connection keeps its rings when the channel is released
	HV18 // host sockets live on when their guest is paused or gone
	HV19 // Close does not wake a blocked Read

	// Stream sockets in general.
	SS01 // a dial's timeout wins over a connection that is there
	SS02 // a dial that gave up is not taken out of the tables
	SS03 // a listener bound to a guest loses its binding when the guest is replaced
	SS04 // the ends of a loopback connection keep their rings after the pages were freed
	SS05 // a listener that was looked up just before it closed still takes connections
	SS06 // a pipe header's length is compared with the largest packet instead of this one
	SS07 // the late answer of a device that was withdrawn is taken for that of its successor
	SS08 // connections nobody has accepted are forgotten when the listener closes
	SS09 // a refused post is tried again for ever, and a guest that goes on wakes nobody
	SS10 // the host keeps the sockets of a guest that was saved, or came back without them
	SS11 // the end of one direction through a bridge ends both
	SS12 // the handshake line has neither a bound nor a time limit

	// Go libraries.
	GO01 // closing a listener does not wake Accept
	GO02 // a dial without a deadline has no timeout
	GO03 // a broken connection in the queue is the listener's error
	GO04 // a connection that comes after its dial was left is not closed
	GO05 // a second Close closes the descriptor again
	GO06 // a short write counts as a whole one
	GO07 // the address family is believed by its number
	GO08 // the error of a deadline is dropped
	GO09 // the wait for the process that connects back has no bound
)
