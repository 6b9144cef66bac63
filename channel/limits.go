package channel

// Limits on what one guest may make the host keep. Source: faults.md 5.
const (
	// MaxIncompleteGPADLs bounds GPADLs whose body messages are missing.
	MaxIncompleteGPADLs = 64
	// MaxGPADLs bounds all GPADLs, complete or not.
	MaxGPADLs = 4096
	// MaxGPADLWords bounds the page lists of all GPADLs of a guest, with what
	// their ranges take when parsed, in 8-byte words: 64 MiB.
	MaxGPADLWords = 64 << 20 / 8
	// rangeWords is the size of a Range, in 8-byte words.
	rangeWords = 4
	// MaxSharedBytes bounds the memory shared through GPADLs of a guest, as
	// Server 2019 does: 1280 MiB.
	MaxSharedBytes = 1280 << 20
	// MaxRangeBufferBytes is what the u16 length of a range buffer can say.
	MaxRangeBufferBytes = 65535
	// MaxGPADLPages is the largest one-range GPADL, in pages.
	MaxGPADLPages = (MaxRangeBufferBytes - 8) / 8
	// MinRingPages is one control page and one data page.
	MinRingPages = 2
	// DefaultRingPages is what the original hv_sock design demands: one control
	// page and 16,384 data bytes (design.md 6).
	DefaultRingPages = 5
	// MaxRingPages leaves both directions of a channel in one GPADL.
	MaxRingPages = MaxGPADLPages / 2
)
