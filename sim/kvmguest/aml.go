package kvmguest

import "encoding/binary"

// This file assembles ACPI Machine Language by hand: iasl refuses the
// five-character hardware id "VMBUS", and a table of a few hundred bytes is no
// reason to need a compiler.
// Source: ACPI specification 6.5, chapter 20 "ACPI Machine Language".

// AML opcodes.
const (
	amlZeroOp    = 0x00
	amlNameOp    = 0x08
	amlByteOp    = 0x0A
	amlDWordOp   = 0x0C
	amlStringOp  = 0x0D
	amlScopeOp   = 0x10
	amlBufferOp  = 0x11
	amlPackageOp = 0x12
	amlMethodOp  = 0x14
	amlExtOp     = 0x5B // prefix of the two-byte opcodes
	amlDeviceOp  = 0x82 // after amlExtOp
	amlReturnOp  = 0xA4
)

// amlPkgLength encodes the length of a package whose contents are n bytes. The
// length counts its own encoding. One byte holds up to 63; otherwise the two
// high bits of the first byte say how many bytes follow and its low nibble
// holds the four low bits.
func amlPkgLength(n int) []byte {
	if n+1 <= 0x3F {
		return []byte{byte(n + 1)}
	}
	for follow := 1; ; follow++ {
		total := n + 1 + follow
		if total < 1<<(4+8*follow) {
			b := []byte{byte(follow<<6 | total&0x0F)}
			for i := range follow {
				b = append(b, byte(total>>(4+8*i)))
			}
			return b
		}
	}
}

// amlPackaged is opcode, package length, then the parts.
func amlPackaged(opcode []byte, parts ...[]byte) []byte {
	contents := concat(parts...)
	return concat(opcode, amlPkgLength(len(contents)), contents)
}

// amlSegment is a four-character name segment; shorter names end in underscores.
func amlSegment(name string) []byte {
	return []byte((name + "____")[:4])
}

// amlRoot is a name segment under the root of the namespace.
func amlRoot(name string) []byte { return concat([]byte{'\\'}, amlSegment(name)) }

// amlInteger is the shortest constant among zero, byte and double word.
func amlInteger(v uint32) []byte {
	switch {
	case v == 0:
		return []byte{amlZeroOp}
	case v <= 0xFF:
		return []byte{amlByteOp, byte(v)}
	}
	return binary.LittleEndian.AppendUint32([]byte{amlDWordOp}, v)
}

// amlString is a zero-terminated ASCII string.
func amlString(s string) []byte { return concat([]byte{amlStringOp}, []byte(s), []byte{0}) }

// amlName declares an object: Name (name, value).
func amlName(name, value []byte) []byte { return concat([]byte{amlNameOp}, name, value) }

// amlScope is Scope (name) { terms }.
func amlScope(name []byte, terms ...[]byte) []byte {
	return amlPackaged([]byte{amlScopeOp}, name, concat(terms...))
}

// amlDevice is Device (name) { terms }.
func amlDevice(name string, terms ...[]byte) []byte {
	return amlPackaged([]byte{amlExtOp, amlDeviceOp}, amlSegment(name), concat(terms...))
}

// amlReturning is Method (name, 0, NotSerialized) { Return (value) }.
func amlReturning(name string, value []byte) []byte {
	const noArguments = 0
	return amlPackaged([]byte{amlMethodOp}, amlSegment(name), []byte{noArguments, amlReturnOp}, value)
}

// amlPackage is Package () { elements }.
func amlPackage(elements ...[]byte) []byte {
	return amlPackaged([]byte{amlPackageOp}, []byte{byte(len(elements))}, concat(elements...))
}

// amlResources is a resource template: a buffer of descriptors closed by the
// end tag. A zero checksum in the end tag means "not checked".
func amlResources(descriptors ...[]byte) []byte {
	contents := concat(concat(descriptors...), []byte{0x79, 0})
	return amlPackaged([]byte{amlBufferOp}, amlInteger(uint32(len(contents))), contents)
}

// dwordMemory is a 32-bit memory address-space descriptor for the fixed range
// of bytes bytes at start, produced for the devices below.
// Source: ACPI specification 6.5, 6.4.3.5.2 "DWord Address Space Descriptor".
func dwordMemory(start, bytes uint32) []byte {
	const (
		descriptor  = 0x87
		bodyBytes   = 23
		memoryRange = 0
		generalFlag = 1<<2 | 1<<3 // both ends fixed
		readWrite   = 1 << 0      // and non-cacheable
	)
	le := binary.LittleEndian
	b := []byte{descriptor, bodyBytes, 0, memoryRange, generalFlag, readWrite}
	b = le.AppendUint32(b, 0) // granularity
	b = le.AppendUint32(b, start)
	b = le.AppendUint32(b, start+bytes-1)
	b = le.AppendUint32(b, 0) // translation
	return le.AppendUint32(b, bytes)
}

// concat joins the parts into new memory.
func concat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}
