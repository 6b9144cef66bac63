package kvmguest

import "time"

// Registers of the clock chip. Source: Motorola MC146818A data sheet.
const (
	rtcIndexPort = 0x70
	rtcDataPort  = 0x71

	rtcSeconds = 0x00
	rtcMinutes = 0x02
	rtcHours   = 0x04
	rtcWeekday = 0x06
	rtcDay     = 0x07
	rtcMonth   = 0x08
	rtcYear    = 0x09
	rtcStatusA = 0x0A // bit 7: update in progress, never set here
	rtcStatusB = 0x0B
	rtcStatusD = 0x0D
	rtcCentury = 0x32

	rtcDivider  = 0x26 // status A: 32,768 Hz, 1024 Hz periodic
	rtc24Hour   = 0x02 // status B: 24-hour mode, numbers in BCD
	rtcHasPower = 0x80 // status D
)

// rtcRegister is the value of a register of the clock at time t: the host's
// clock in UTC, as firmware leaves it. It cannot be set.
func rtcRegister(index byte, t time.Time) byte {
	t = t.UTC()
	switch index {
	case rtcSeconds:
		return bcd(t.Second())
	case rtcMinutes:
		return bcd(t.Minute())
	case rtcHours:
		return bcd(t.Hour())
	case rtcWeekday:
		return bcd(int(t.Weekday()) + 1)
	case rtcDay:
		return bcd(t.Day())
	case rtcMonth:
		return bcd(int(t.Month()))
	case rtcYear:
		return bcd(t.Year() % 100)
	case rtcCentury:
		return bcd(t.Year() / 100)
	case rtcStatusA:
		return rtcDivider
	case rtcStatusB:
		return rtc24Hour
	case rtcStatusD:
		return rtcHasPower
	}
	return 0
}

// bcd writes a number below 100 as two decimal digits.
func bcd(n int) byte { return byte(n/10<<4 | n%10) }
