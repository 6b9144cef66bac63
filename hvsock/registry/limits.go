package registry

// What a file or a caller may ask for.
const (
	// MaxServices is far above the dozen of a real host.
	MaxServices = 4096
	// MaxFileBytes bounds what Load reads: MaxServices with long names.
	MaxFileBytes = 8 << 20
	// MaxLineBytes bounds a line of a file with all its continuations.
	MaxLineBytes = 64 << 10
	// MaxTextBytes bounds an ElementName or a descriptor, in UTF-8 bytes.
	MaxTextBytes = 4096
)
