package kvmguest

import (
	"sync"
	"time"
)

// A machineEvent is what a device asks of the run loop.
type machineEvent int

const (
	eventNone machineEvent = iota
	eventReset
	eventPowerOff
)

const (
	allOnes         = 0xFFFFFFFF // what nobody drives
	rtcIndexMask    = 0x7F       // bit 7 gates the NMI
	keyboardReset   = 0xFE       // command to the keyboard controller: pulse the reset line
	chipsetReset    = 1 << 2     // reset control register: reset now
	powerSCIEnabled = 1 << 0     // PM1 control: the machine is in ACPI mode, as firmware leaves it
	powerTypeShift  = 10
	powerTypeMask   = 7
	powerSleepNow   = 1 << 13
)

// A portSpace answers the I/O ports that leave KVM. Absent devices read as all
// ones and swallow writes. Safe for use by several virtual processors.
type portSpace struct {
	serial *uart

	mu           sync.Mutex
	powerEnable  uint16
	powerControl uint16
	rtcIndex     byte
}

// in reads size bytes (1, 2 or 4) from port.
func (s *portSpace) in(port uint16, size int) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case port >= serialPort && port < serialPort+uartPorts:
		return uint32(s.serial.read(int(port - serialPort)))
	case port == rtcDataPort:
		return uint32(rtcRegister(s.rtcIndex, time.Now()))
	case port == keyboardPort:
		return 0 // controller ready: its reset is waited for
	case port == powerEventPort && size == 4:
		return uint32(s.powerEnable) << 16
	case port == powerEventPort:
		return 0
	case port == powerEventPort+2:
		return uint32(s.powerEnable)
	case port == powerPort:
		return uint32(s.powerControl) | powerSCIEnabled
	}
	return allOnes
}

// out writes the low size bytes of v to port.
func (s *portSpace) out(port uint16, v uint32) machineEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case port >= serialPort && port < serialPort+uartPorts:
		s.serial.write(int(port-serialPort), byte(v))
	case port == keyboardPort && byte(v) == keyboardReset, port == resetPort && v&chipsetReset != 0:
		return eventReset
	case port == rtcIndexPort:
		s.rtcIndex = byte(v) & rtcIndexMask
	case port == powerEventPort+2:
		s.powerEnable = uint16(v)
	case port == powerPort:
		s.powerControl = uint16(v) &^ powerSleepNow
		if v&powerSleepNow != 0 && v>>powerTypeShift&powerTypeMask == sleepTypeOff {
			return eventPowerOff
		}
	}
	return eventNone
}
