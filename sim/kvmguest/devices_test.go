package kvmguest

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An irqLog records the changes of an interrupt line.
type irqLog struct{ levels []bool }

func (l *irqLog) set(level bool) { l.levels = append(l.levels, level) }

func TestSerialInterruptDrivenOutput(t *testing.T) {
	var out bytes.Buffer
	var irq irqLog
	u := newUART(&out, irq.set)
	u.write(uartIIR, fcrEnable)
	u.write(uartMCR, mcrOut2)
	u.write(uartIER, ierTransmit)
	require.Equal(t, []bool{true}, irq.levels, "enabling the interrupt while idle raises it at once")
	require.Equal(t, byte(iirTransmit|iirFIFO), u.read(uartIIR))
	require.Equal(t, []bool{true, false}, irq.levels, "reading the identification acknowledges it")
	for _, c := range []byte("hi there") {
		u.write(uartData, c)
	}
	require.Equal(t, []bool{true, false, true}, irq.levels, "one edge for a burst: each change is a system call")
	require.Empty(t, out.String(), "held until a line is complete or the driver stops")
	require.Equal(t, byte(iirTransmit|iirFIFO), u.read(uartIIR))
	u.write(uartIER, 0)
	require.Equal(t, "hi there", out.String(), "a prompt without newline must appear")
	require.Equal(t, byte(iirNone|iirFIFO), u.read(uartIIR))
	require.False(t, irq.levels[len(irq.levels)-1])
}

func TestSerialPolledOutput(t *testing.T) {
	var out bytes.Buffer
	var irq irqLog
	u := newUART(&out, irq.set)
	require.Equal(t, byte(lsrTransmitIdle), u.read(uartLSR))
	u.write(uartData, 'x')
	u.write(uartData, '\n')
	require.Equal(t, "x\n", out.String())
	require.Empty(t, irq.levels, "a console that polls must not be interrupted")
}

func TestSerialInput(t *testing.T) {
	var irq irqLog
	u := newUART(&bytes.Buffer{}, irq.set)
	require.Zero(t, u.Type([]byte("early")), "Linux would clear it when it opens the port")
	u.write(uartMCR, mcrOut2)
	u.write(uartIER, ierReceive)
	require.Equal(t, 2, u.Type([]byte("ls")))
	require.Equal(t, byte(iirReceive), u.read(uartIIR))
	require.Equal(t, byte(lsrTransmitIdle|lsrDataReady), u.read(uartLSR))
	require.Equal(t, byte('l'), u.read(uartData))
	require.Equal(t, byte('s'), u.read(uartData))
	require.Equal(t, byte(lsrTransmitIdle), u.read(uartLSR))
	require.Equal(t, []bool{true, false}, irq.levels)
	require.Equal(t, maxConsoleInputBytes, u.Type(make([]byte, 2*maxConsoleInputBytes)), "what nobody reads is bounded")
}

// TestSerialProbe is what Linux' 8250 driver does to find out whether a chip is there.
func TestSerialProbe(t *testing.T) {
	u := newUART(&bytes.Buffer{}, func(bool) {})
	u.write(uartScratch, 0x5A)
	require.Equal(t, byte(0x5A), u.read(uartScratch))
	u.write(uartLCR, lcrDLAB)
	u.write(uartData, 1)
	u.write(uartIER, 2)
	require.Equal(t, byte(1), u.read(uartData), "with DLAB the first two registers are the divisor")
	require.Equal(t, byte(2), u.read(uartIER))
	u.write(uartLCR, 3)
	require.Zero(t, u.read(uartIER), "the divisor is not the interrupt enable register")
	u.write(uartMCR, mcrLoop|0x0A)
	require.Equal(t, byte(0x90), u.read(uartMSR)&0xF0, "loopback of OUT2 and RTS shows as DCD and CTS")
	u.write(uartData, 'q')
	require.Equal(t, byte('q'), u.read(uartData), "loopback of data")
}

func TestSerialWriterFailure(t *testing.T) {
	u := newUART(failingWriter{}, func(bool) {})
	u.write(uartData, '\n')
	require.Equal(t, byte(lsrTransmitIdle), u.read(uartLSR), "a lost console must not stop the guest")
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestPorts(t *testing.T) {
	var out bytes.Buffer
	s := &portSpace{serial: newUART(&out, func(bool) {})}
	require.Equal(t, uint32(0xFFFFFFFF), s.in(0xCFC, 4), "no PCI: all ones")
	require.Zero(t, s.in(keyboardPort, 1)&2, "Linux waits for the controller before it resets through it")
	require.Equal(t, eventNone, s.out(0x80, 1), "writes to nothing are swallowed")
	s.out(serialPort, '\n')
	require.Equal(t, "\n", out.String())
	require.NotZero(t, s.in(powerPort, 2)&powerSCIEnabled, "the machine starts in ACPI mode")
	s.out(powerEventPort+2, 0x0120)
	require.Equal(t, uint32(0x0120), s.in(powerEventPort+2, 2))
	require.Equal(t, eventNone, s.out(powerPort, powerSleepNow|1<<powerTypeShift), "only soft-off is a sleep state here")
	require.Equal(t, eventPowerOff, s.out(powerPort, powerSleepNow|sleepTypeOff<<powerTypeShift))
	require.Equal(t, eventReset, s.out(keyboardPort, keyboardReset))
	require.Equal(t, eventReset, s.out(resetPort, chipsetReset|2))
	require.Equal(t, eventNone, s.out(keyboardPort, 0xAE), "other keyboard commands do not reset")
}

func TestClock(t *testing.T) {
	when := time.Date(2026, time.November, 21, 17, 4, 59, 0, time.UTC)
	var got []byte
	for _, index := range []byte{rtcCentury, rtcYear, rtcMonth, rtcDay, rtcHours, rtcMinutes, rtcSeconds, rtcWeekday} {
		got = append(got, rtcRegister(index, when.In(time.FixedZone("x", 3600))))
	}
	require.Equal(t, []byte{0x20, 0x26, 0x11, 0x21, 0x17, 0x04, 0x59, 7}, got, "UTC in BCD; Saturday is day 7")
	require.Zero(t, rtcRegister(rtcStatusA, when)&0x80, "an update in progress would make the guest wait")
}

func TestNotebook(t *testing.T) {
	var lines []string
	n := newNotebook(func(s string) { lines = append(lines, s) })
	for range 3 {
		n.note("MSR %#x", 0x10)
	}
	require.Equal(t, []string{"MSR 0x10"}, lines, "the guest decides how often it happens; the user reads it once")
	for i := range 2 * maxNotes {
		n.note("MSR %d", i)
	}
	require.Len(t, lines, maxNotes)
}

func TestHasVirtualization(t *testing.T) {
	require.True(t, hasVirtualization("processor\t: 0\nflags\t\t: fpu svm lm\n"))
	require.True(t, hasVirtualization("flags\t\t: fpu vmx\n"))
	require.False(t, hasVirtualization("flags\t\t: fpu lm hypervisor\nbugs\t\t: svm\n"), "only the flags count")
	require.False(t, hasVirtualization(""))
}

func TestOptions(t *testing.T) {
	_, err := Options{}.withDefaults()
	require.ErrorContains(t, err, "Kernel")
	_, err = Options{Kernel: "k", MemoryBytes: 5 << 20}.withDefaults()
	require.ErrorContains(t, err, "5 MiB is outside 32 to 3072 MiB")
	_, err = Options{Kernel: "k", MemoryBytes: 64<<20 + 1}.withDefaults()
	require.ErrorContains(t, err, "multiple of 4096")
	_, err = Options{Kernel: "k", CPUs: 99}.withDefaults()
	require.ErrorContains(t, err, "CPUs")
	o, err := Options{Kernel: "k"}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, DefaultAppend, o.Append)
	require.Equal(t, int64(DefaultMemoryBytes), o.MemoryBytes)
}

func TestCrashErrorShowsRegisters(t *testing.T) {
	e := &CrashError{VP: 1, Reason: "triple fault", Known: true, Registers: Registers{RIP: 0xFFFFFFFF81000000, CR3: 0x1234}}
	require.Contains(t, e.Error(), "vp 1: triple fault")
	require.Contains(t, e.Error(), "RIP    ffffffff81000000")
	require.Equal(t, 9, strings.Count(e.Error(), "\n")+1, "one line and eight rows of registers")
}
