package kvmguest

import (
	"bytes"
	"io"
	"sync"
)

// Registers of an 8250/16550A, as offsets from its port, and their bits.
// Source: National Semiconductor PC16550D data sheet.
const (
	uartData    = 0 // receive, transmit; divisor low with DLAB
	uartIER     = 1 // interrupt enable; divisor high with DLAB
	uartIIR     = 2 // read: interrupt identification; write: FIFO control
	uartLCR     = 3
	uartMCR     = 4
	uartLSR     = 5
	uartMSR     = 6
	uartScratch = 7
	uartPorts   = 8

	ierReceive  = 1 << 0
	ierTransmit = 1 << 1

	iirNone     = 0x01
	iirTransmit = 0x02
	iirReceive  = 0x04
	iirFIFO     = 0xC0 // FIFOs enabled

	fcrEnable       = 1 << 0
	fcrClearReceive = 1 << 1

	lcrDLAB = 1 << 7

	mcrOut2 = 1 << 3 // gates the interrupt line on a PC
	mcrLoop = 1 << 4

	lsrDataReady    = 1 << 0
	lsrTransmitIdle = 0x60 // holding register and shift register empty

	msrConnected = 0xB0 // carrier, data set ready, clear to send
)

// consoleFlushBytes bounds what is held back while the guest writes a line.
const consoleFlushBytes = 1024

// A uart is the serial console. The line to its peer is infinitely fast: the
// transmitter is always idle, so a transmit interrupt follows every byte.
type uart struct {
	mu  sync.Mutex
	out io.Writer
	irq func(level bool) // called on changes only, with mu held

	ier, lcr, mcr, scratch byte
	fifo                   bool
	divisor                [2]byte
	transmitPending        bool
	level                  bool
	held                   []byte // written by the guest, not yet by us
	input                  bytes.Buffer
}

func newUART(out io.Writer, irq func(level bool)) *uart {
	return &uart{out: out, irq: irq}
}

// write is a write of the guest to register reg.
func (u *uart) write(reg int, v byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	dlab := u.lcr&lcrDLAB != 0
	switch {
	case dlab && (reg == uartData || reg == uartIER):
		u.divisor[reg] = v
	case reg == uartData:
		u.transmit(v)
		u.transmitPending = true
	case reg == uartIER:
		was := u.ier
		u.ier = v & 0x0F
		if u.ier&ierTransmit != 0 && was&ierTransmit == 0 {
			u.transmitPending = true // enabling it while idle interrupts at once
		}
		if u.ier&ierTransmit == 0 {
			u.flush() // the driver has nothing more to say
		}
	case reg == uartIIR:
		u.fifo = v&fcrEnable != 0
		if v&fcrClearReceive != 0 {
			u.input.Reset()
		}
	case reg == uartLCR:
		u.lcr = v
	case reg == uartMCR:
		u.mcr = v & 0x1F
	case reg == uartScratch:
		u.scratch = v
	}
	u.update()
}

// read is a read of the guest from register reg.
func (u *uart) read(reg int) byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.update()
	if u.lcr&lcrDLAB != 0 && (reg == uartData || reg == uartIER) {
		return u.divisor[reg]
	}
	switch reg {
	case uartData:
		b, _ := u.input.ReadByte() // zero when nothing was typed
		return b
	case uartIER:
		return u.ier
	case uartIIR:
		return u.identify()
	case uartLCR:
		return u.lcr
	case uartMCR:
		return u.mcr
	case uartLSR:
		if u.input.Len() > 0 {
			return lsrTransmitIdle | lsrDataReady
		}
		return lsrTransmitIdle
	case uartMSR:
		if u.mcr&mcrLoop != 0 { // drivers test the chip with it: outputs come back as inputs
			return u.mcr&0x0C<<4 | u.mcr&0x02<<3 | u.mcr&0x01<<5
		}
		return msrConnected
	}
	return u.scratch
}

// identify is the interrupt identification register; reading a transmit
// interrupt acknowledges it.
func (u *uart) identify() byte {
	id := byte(iirNone)
	switch {
	case u.receiving():
		id = iirReceive
	case u.transmitting():
		id = iirTransmit
		u.transmitPending = false
	}
	if u.fifo {
		id |= iirFIFO
	}
	return id
}

func (u *uart) receiving() bool    { return u.ier&ierReceive != 0 && u.input.Len() > 0 }
func (u *uart) transmitting() bool { return u.ier&ierTransmit != 0 && u.transmitPending }

// update drives the interrupt line. It stays high from byte to byte of one
// burst, since a change costs a system call and the interrupt is already latched.
func (u *uart) update() {
	level := u.mcr&mcrOut2 != 0 && (u.receiving() || u.transmitting())
	if level != u.level {
		u.level = level
		u.irq(level)
	}
}

// transmit takes one byte of console output.
func (u *uart) transmit(v byte) {
	if u.mcr&mcrLoop != 0 {
		u.typed([]byte{v})
		return
	}
	u.held = append(u.held, v)
	if v == '\n' || len(u.held) >= consoleFlushBytes {
		u.flush()
	}
}

// flush hands held output to the writer. A writer that fails loses the console,
// not the guest.
func (u *uart) flush() {
	if len(u.held) > 0 {
		_, _ = u.out.Write(u.held)
		u.held = u.held[:0]
	}
}

// typed appends to the guest's input and returns how many bytes were taken.
func (u *uart) typed(p []byte) int {
	n := min(len(p), maxConsoleInputBytes-u.input.Len())
	u.input.Write(p[:n])
	return n
}

// Type sends p to the guest's console and returns how many bytes fit: none while
// the guest does not listen, since it throws away what it finds when it begins to.
func (u *uart) Type(p []byte) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ier&ierReceive == 0 {
		return 0
	}
	n := u.typed(p)
	u.update()
	return n
}

// Flush writes what is held back.
func (u *uart) Flush() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.flush()
}
