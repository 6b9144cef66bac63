package vmbus

// What fits where. Source: vmbus-control.md 0.1; Linux include/linux/hyperv.h;
// Microsoft Hypervisor Top-Level Functional Specification, message layout.
const (
	// PageBytes is the page of every count, offset and PFN on the wire,
	// whatever the guest's own page size is.
	PageBytes = 4096

	// HeaderBytes is the type and the reserved word before every message body.
	HeaderBytes = 8
	// MaxPayloadBytes is what one SynIC message slot carries: one whole
	// control message with its header.
	MaxPayloadBytes = 240
	// MaxBodyBytes is what is left of a slot after the header.
	MaxBodyBytes = MaxPayloadBytes - HeaderBytes

	// MaxChannels is the number of channel ids, 1..2047: an id is an event
	// flag of one SINT, and flag 0 is reserved.
	MaxChannels = 2047

	// UserDataBytes is the free-form part of an offer and of an open.
	UserDataBytes = 120

	// MaxRangeBufferBytes bounds GPADLHeader.RangeBufLen, a 16-bit count.
	MaxRangeBufferBytes = 1<<16 - 1
	// MaxGPADLPages is the largest GPADL of one range: its range word and PFNs
	// are u64 words in a range buffer of MaxRangeBufferBytes.
	MaxGPADLPages = MaxRangeBufferBytes/wordBytes - 1
	// MaxHeaderPFNs is how many PFNs of a one-range GPADL fit its GPADLHeader,
	// whose words start at byte 20 with the range word.
	MaxHeaderPFNs = (MaxPayloadBytes-20)/wordBytes - 1
	// MaxBodyPFNs is how many PFNs fit one GPADLBody, whose words start at byte 16.
	MaxBodyPFNs = (MaxPayloadBytes - 16) / wordBytes

	// MaxMonitorIDs is the number of monitor ids, 0..127: 4 groups of 32 bits.
	MaxMonitorIDs = 128

	wordBytes = 8 // a range buffer is a list of u64
)
