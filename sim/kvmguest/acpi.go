package kvmguest

import "encoding/binary"

// Identification in every table header.
const (
	acpiOEM     = "HVLAB " // 6 bytes
	acpiTableID = "HVLABGST"
	acpiCreator = "HVLB"
)

// Sizes of ACPI structures. Source: ACPI specification 6.5, chapter 5.2.
const (
	rsdpBytes        = 36
	tableHeaderBytes = 36
	fadtBytes        = 244 // revision 3, ACPI 2.0
	facsBytes        = 64
	tableAlignment   = 64 // the FACS needs it, the others do not mind
)

// sleepTypeOff is the SLP_TYP value of the soft-off state: \_S5 tells the guest
// and the PM1a control port receives it.
const sleepTypeOff = 5

// acpiTables returns the firmware tables as they lie from address on, the RSDP
// first: RSDP, XSDT, FADT, FACS, DSDT and MADT.
func acpiTables(address uint64, cpus int) []byte {
	image := make([]byte, tableAlignment) // the RSDP, filled in at the end
	put := func(table []byte) uint64 {
		at := address + uint64(len(image))
		image = append(image, table...)
		for len(image)%tableAlignment != 0 {
			image = append(image, 0)
		}
		return at
	}
	facs := put(firmwareControl())
	dsdt := put(acpiTable("DSDT", 2, dsdtBody()))
	fadt := put(acpiTable("FACP", 3, fadtBody(facs, dsdt)))
	madt := put(acpiTable("APIC", 3, madtBody(cpus)))
	var pointers []byte
	for _, at := range []uint64{fadt, madt} {
		pointers = binary.LittleEndian.AppendUint64(pointers, at)
	}
	xsdt := put(acpiTable("XSDT", 1, pointers))
	copy(image, rootPointer(xsdt))
	return image
}

// rootPointer is the RSDP, revision 2. It has two checksums: over the first 20
// bytes, as in ACPI 1.0, and over all.
func rootPointer(xsdt uint64) []byte {
	const revision1Bytes = 20
	b := make([]byte, rsdpBytes)
	copy(b, "RSD PTR ")
	copy(b[9:], acpiOEM)
	b[15] = 2 // revision
	binary.LittleEndian.PutUint32(b[20:], rsdpBytes)
	binary.LittleEndian.PutUint64(b[24:], xsdt)
	b[8] = checksum(b[:revision1Bytes])
	b[32] = checksum(b)
	return b
}

// acpiTable puts the common header in front of body.
func acpiTable(signature string, revision byte, body []byte) []byte {
	b := make([]byte, tableHeaderBytes, tableHeaderBytes+len(body))
	copy(b, signature)
	binary.LittleEndian.PutUint32(b[4:], uint32(tableHeaderBytes+len(body)))
	b[8] = revision
	copy(b[10:], acpiOEM)
	copy(b[16:], acpiTableID)
	binary.LittleEndian.PutUint32(b[24:], 1) // OEM revision
	copy(b[28:], acpiCreator)
	binary.LittleEndian.PutUint32(b[32:], 1) // creator revision
	b = append(b, body...)
	b[9] = checksum(b)
	return b
}

// checksum is the byte that makes the sum of b zero.
func checksum(b []byte) byte {
	var sum byte
	for _, v := range b {
		sum += v
	}
	return -sum
}

// firmwareControl is the FACS: it has no checksum and nobody uses it here, but
// without it the guest complains about the global lock.
func firmwareControl() []byte {
	b := make([]byte, facsBytes)
	copy(b, "FACS")
	binary.LittleEndian.PutUint32(b[4:], facsBytes)
	b[32] = 1 // version
	return b
}

// fadtBody describes fixed hardware: power management ports, no 8042 keyboard
// controller and no clock chip to probe. Offsets are those of the whole table.
// Source: ACPI specification 6.5, 5.2.9 "Fixed ACPI Description Table".
func fadtBody(facs, dsdt uint64) []byte {
	const (
		bootNoVGA = 1 << 2
		bootNoRTC = 1 << 5

		flagWBINVD      = 1 << 0
		flagC1Supported = 1 << 2
		flagNoPowerKey  = 1 << 4 // no fixed-hardware power button
		flagNoSleepKey  = 1 << 5
		flagResetPort   = 1 << 10

		resetValue = 0xFE
	)
	t := make([]byte, fadtBytes)
	le := binary.LittleEndian
	le.PutUint32(t[36:], uint32(facs))
	le.PutUint32(t[40:], uint32(dsdt))
	le.PutUint16(t[46:], sciIRQ)
	le.PutUint32(t[56:], powerEventPort)
	le.PutUint32(t[64:], powerPort)
	t[88] = 4 // PM1 event block bytes: status and enable
	t[89] = 2 // PM1 control block bytes
	le.PutUint16(t[109:], bootNoVGA|bootNoRTC)
	le.PutUint32(t[112:], flagWBINVD|flagC1Supported|flagNoPowerKey|flagNoSleepKey|flagResetPort)
	copy(t[116:], ioAddress(keyboardPort, 1))
	t[128] = resetValue
	le.PutUint64(t[132:], facs)
	le.PutUint64(t[140:], dsdt)
	copy(t[148:], ioAddress(powerEventPort, 4))
	copy(t[172:], ioAddress(powerPort, 2))
	return t[tableHeaderBytes:]
}

// ioAddress is a Generic Address Structure for an I/O port of the given width.
// Source: ACPI specification 6.5, 5.2.3.2.
func ioAddress(port uint16, bytes byte) []byte {
	const (
		systemIO     = 1
		accessUndef  = 0
		bitOffset    = 0
		bitsOfOneByt = 8
	)
	return binary.LittleEndian.AppendUint64([]byte{systemIO, bytes * bitsOfOneByt, bitOffset, accessUndef}, uint64(port))
}

// madtBody lists the interrupt controllers that KVM emulates: a local APIC for
// each processor, one IOAPIC, and the two legacy lines that differ from the
// identity: the timer is on pin 2, and the SCI is level triggered.
// Source: ACPI specification 6.5, 5.2.12 "Multiple APIC Description Table".
func madtBody(cpus int) []byte {
	const (
		localAPIC, ioAPIC, override = 0, 1, 2
		dualPIC                     = 1 // also has 8259s
		enabled                     = 1
		isaBus                      = 0
		busDefault                  = 0
		activeHighLevel             = 0x000D
		timerIRQ, timerPin          = 0, 2
	)
	le := binary.LittleEndian
	b := le.AppendUint32(nil, localAPICAddress)
	b = le.AppendUint32(b, dualPIC)
	for i := range cpus {
		b = append(b, localAPIC, 8, byte(i), byte(i))
		b = le.AppendUint32(b, enabled)
	}
	b = append(b, ioAPIC, 12, byte(cpus), 0)
	b = le.AppendUint32(b, ioAPICAddress)
	b = le.AppendUint32(b, 0) // first interrupt of this IOAPIC
	entry := func(irq byte, pin uint32, flags uint16) {
		b = append(b, override, 10, isaBus, irq)
		b = le.AppendUint32(b, pin)
		b = le.AppendUint16(b, flags)
	}
	entry(timerIRQ, timerPin, busDefault)
	entry(sciIRQ, sciIRQ, activeHighLevel)
	return b
}

// dsdtBody is the namespace: the soft-off state, and the VMBus device under a
// module device whose memory window feeds VMBus devices with MMIO.
//
//	Name (\_S5, Package () { 5, 5, 0, 0 })
//	Scope (\_SB) {
//	  Device (VMOD) {
//	    Name (_HID, "ACPI0004")
//	    Name (_UID, 0)
//	    Name (_CRS, ResourceTemplate () { DWordMemory (0xF0000000, 128 MiB) })
//	    Device (VMBS) {
//	      Name (_HID, "VMBUS")
//	      Name (_UID, 0)
//	      Name (_DDN, "VMBUS")
//	      Name (_ADR, 0)
//	      Method (_STA, 0) { Return (0x0F) }
//	    }
//	  }
//	}
//
// Linux attaches its VMBus driver to nothing else.
func dsdtBody() []byte {
	const presentEnabledShownWorking = 0x0F
	vmbus := amlDevice("VMBS",
		amlName(amlSegment("_HID"), amlString("VMBUS")),
		amlName(amlSegment("_UID"), amlInteger(0)),
		amlName(amlSegment("_DDN"), amlString("VMBUS")),
		amlName(amlSegment("_ADR"), amlInteger(0)),
		amlReturning("_STA", amlInteger(presentEnabledShownWorking)),
	)
	module := amlDevice("VMOD",
		amlName(amlSegment("_HID"), amlString("ACPI0004")),
		amlName(amlSegment("_UID"), amlInteger(0)),
		amlName(amlSegment("_CRS"), amlResources(dwordMemory(mmioWindowStart, mmioWindowBytes))),
		vmbus,
	)
	off := amlPackage(amlInteger(sleepTypeOff), amlInteger(sleepTypeOff), amlInteger(0), amlInteger(0))
	return concat(amlName(amlRoot("_S5"), off), amlScope(amlRoot("_SB"), module))
}
