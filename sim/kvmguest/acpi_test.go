package kvmguest

import (
	"bytes"
	"encoding/binary"
	"testing"

	_ "github.com/hvlab/hvlab/internal/fixedseed" // the same draws in every run
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// at is the part of the ACPI image that starts at a guest physical address.
func at(image []byte, address uint64) []byte { return image[address-acpiAddress:] }

// readTable checks the header of the table at address and returns the table.
func readTable(t *testing.T, image []byte, address uint64) (signature string, table []byte) {
	t.Helper()
	b := at(image, address)
	signature = string(b[:4])
	table = b[:binary.LittleEndian.Uint32(b[4:])]
	if signature != "FACS" {
		require.Zero(t, checksum(table), "all bytes of table %s must add up to zero", signature)
	}
	return signature, table
}

// TestACPIWalk goes from the RSDP to every table as a kernel does.
func TestACPIWalk(t *testing.T) {
	const cpus = 3
	le := binary.LittleEndian
	image := acpiTables(acpiAddress, cpus)
	require.LessOrEqual(t, len(image), acpiEnd-acpiAddress, "the tables must fit the reserved range of the memory map")
	require.Equal(t, "RSD PTR ", string(image[:8]))
	require.Zero(t, checksum(image[:20]), "ACPI 1.0 checksum")
	require.Zero(t, checksum(image[:rsdpBytes]), "extended checksum")

	signature, xsdt := readTable(t, image, le.Uint64(image[24:]))
	require.Equal(t, "XSDT", signature)
	tables := map[string][]byte{}
	for p := xsdt[tableHeaderBytes:]; len(p) > 0; p = p[8:] {
		name, table := readTable(t, image, le.Uint64(p))
		tables[name] = table
	}
	fadt := tables["FACP"]
	require.Len(t, fadt, fadtBytes)
	require.Equal(t, le.Uint64(fadt[140:]), uint64(le.Uint32(fadt[40:])), "the 32-bit and 64-bit pointers to the DSDT must agree")
	facs, _ := readTable(t, image, le.Uint64(fadt[132:]))
	require.Equal(t, "FACS", facs)
	require.Zero(t, le.Uint64(fadt[132:])%tableAlignment, "the FACS must be aligned to 64 bytes")
	dsdt, _ := readTable(t, image, le.Uint64(fadt[140:]))
	require.Equal(t, "DSDT", dsdt)
	require.Equal(t, byte(resetValueOf(fadt)), byte(keyboardReset), "the reset register must do what the port device understands")

	var apicIDs []byte
	for e := tables["APIC"][tableHeaderBytes+8:]; len(e) > 0; e = e[e[1]:] {
		if e[0] == 0 { // a local APIC
			apicIDs = append(apicIDs, e[3])
			require.Equal(t, uint32(1), le.Uint32(e[4:]), "the processor is enabled")
		}
	}
	require.Equal(t, []byte{0, 1, 2}, apicIDs, "one APIC a processor; its id is the VP index")
}

func resetValueOf(fadt []byte) byte { return fadt[128] }

// amlNode is a package of AML: what it declares, and what lies in it.
type amlNode struct {
	name     string
	contents []byte
}

// amlLength reads a package length: the number of bytes of the encoding and of
// the package including it.
func amlLength(b []byte) (encoding, total int) {
	follow := int(b[0] >> 6)
	if follow == 0 {
		return 1, int(b[0] & 0x3F)
	}
	total = int(b[0] & 0x0F)
	for i := range follow {
		total |= int(b[1+i]) << (4 + 8*i)
	}
	return 1 + follow, total
}

// devices finds the Device packages in the term list b, going into scopes.
func devices(t *testing.T, b []byte) (found []amlNode) {
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == amlExtOp && b[i+1] == amlDeviceOp:
			n, total := amlLength(b[i+2:])
			require.LessOrEqual(t, i+2+total, len(b), "a device must end inside its parent")
			contents := b[i+2+n : i+2+total]
			found = append(found, amlNode{string(contents[:4]), contents[4:]})
			found = append(found, devices(t, contents[4:])...)
			i += 1 + total
		case b[i] == amlScopeOp && b[i+1]&0xC0 == 0x40: // lengths of more than 63 bytes only
			n, total := amlLength(b[i+1:])
			require.Equal(t, len(b), i+1+total, "the scope is the last term")
			return append(found, devices(t, b[i+1+n:])...)
		}
	}
	return found
}

// TestVMBusDevice looks for what makes Linux attach its VMBus driver.
func TestVMBusDevice(t *testing.T) {
	found := devices(t, dsdtBody())
	require.Len(t, found, 2)
	require.Equal(t, "VMOD", found[0].name)
	require.Equal(t, "VMBS", found[1].name)
	require.True(t, bytes.Contains(found[1].contents, append([]byte("_HID\x0D"), "VMBUS\x00"...)), "the hardware id that Linux' driver matches")
	require.True(t, bytes.Contains(found[1].contents, []byte("_STA\x00\xA4\x0A\x0F")), "Method (_STA) { Return (0x0F) }: present and working")
	require.True(t, bytes.Contains(found[0].contents, append([]byte{0x87, 23, 0}, 0)), "the parent has a memory address space descriptor")
	require.True(t, bytes.Contains(dsdtBody(), []byte("\\_S5_\x12\x08\x04\x0A\x05\x0A\x05\x00\x00")), "the soft-off state is a package of four")
}

// TestAMLPackageLength is a round trip over the boundaries between encodings.
func TestAMLPackageLength(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.IntRange(0, 70), rapid.IntRange(4085, 4100), rapid.IntRange(1<<20-8, 1<<20+8)).Draw(t, "contents")
		b := amlPkgLength(n)
		encoding, total := amlLength(b)
		if encoding != len(b) || total != n+len(b) {
			t.Fatalf("%d bytes of contents: encoded as % x, read as %d in %d", n, b, total, encoding)
		}
	})
}
