package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
)

// Profiles runs the same conversation with every kind of guest. Kinds differ in many
// ways (hvsock.md 15), but not in these: who gets a connection, which bytes come out
// at either end and where they end, as long as both ends keep the rules, and what the
// guest says on the bus about it, the number of pages aside.
func Profiles(data []byte) error {
	all := hvsock.Profiles()
	return traced(profiles(data, all, nil), func(trace *strings.Builder) error { return profiles(data, all, trace) })
}

func profiles(data []byte, kinds []hvsock.Profile, trace *strings.Builder) error {
	var first *profileRun
	for _, p := range kinds {
		r := &profileRun{guestSocketWorld: newGuestSocketWorld(trace)}
		r.note("== profile %q", p.Name)
		if err := r.play(data, p); err != nil {
			return err
		}
		if first == nil {
			first = r
			continue
		}
		for i, what := range first.seen {
			if r.seen[i] != what { // as many: both have played the same steps
				return violated("profiles agree", "step %d: %q, of a guest of profile %q: %q", i, what, p.Name, r.seen[i])
			}
		}
	}
	return nil
}

// A profileRun is one conversation with one kind of guest.
type profileRun struct {
	*guestSocketWorld
	seen []string // of each step
}

// maxProfileSteps bounds an input: each step runs once for each profile.
const maxProfileSteps = 64

// play carries out the steps that data says.
func (r *profileRun) play(data []byte, p hvsock.Profile) error {
	in := &input{data}
	if err := r.startAs(socketVersion(in.u8()), hvsock.GuestOptions{Profile: p}, false); err != nil {
		return violated("I-STATE-LEGAL", "%v", err)
	}
	var said strings.Builder
	r.heard = func(m vmbus.Message) {
		if t := m.Type(); t != vmbus.TypeGPADLHeader && t != vmbus.TypeGPADLBody { // as many as the rings have pages
			fmt.Fprintf(&said, ", guest: %v", t)
		}
	}
	for n := 0; in.more() && r.fault == nil && n < maxProfileSteps; n++ {
		what := r.step(in.u8(), int(in.u16())) + said.String()
		said.Reset()
		r.note("%s", what)
		r.seen = append(r.seen, what)
	}
	r.end()
	return r.fault
}

// step is one thing that both ends do to its end, and what is seen of it.
func (r *profileRun) step(what uint8, n int) string {
	switch what % 6 {
	case 0:
		return r.open("the host dials", 0)
	case 1:
		return r.open("the guest dials", 1)
	case 2:
		return r.withPair(what, func(p *socketPair) string { return r.down(p, n) })
	case 3:
		return r.withPair(what, func(p *socketPair) string { return r.up(p, n) })
	case 4:
		return r.withPair(what, r.finishHost)
	default:
		r.clock.advance(time.Duration(n)*time.Millisecond, r.run)
		return "time passes"
	}
}

// open makes a connection; its other end is the channel that came with it.
func (r *profileRun) open(who string, dial uint8) string {
	before := len(r.conns)
	r.dial(dial)
	r.run()
	if c, err := r.listener.TryAccept(); err == nil {
		r.connected(c)
	}
	if len(r.conns) == before {
		return who + ": no connection"
	}
	if p, c := r.conns[before], r.channels[len(r.channels)-1]; c.in != nil {
		p.peer = c
	}
	return who + ": connected"
}

// withPair has f work on the connection that what chooses.
func (r *profileRun) withPair(what uint8, f func(*socketPair) string) string {
	if len(r.conns) == 0 {
		return "nobody is connected"
	}
	p := r.conns[int(what/6)%len(r.conns)]
	if p.peer == nil || p.peer.in == nil {
		r.fail("I-CONNECT-MATCH", "a connection has no channel")
		return ""
	}
	return f(p)
}

// maxTransferSteps is more than any transfer takes with the smallest rings.
const maxTransferSteps = 1000

// down sends n bytes to the guest, whose application reads all of them.
func (r *profileRun) down(p *socketPair, n int) string {
	c, buf := p.peer, make([]byte, 5000)
	if c.finished {
		return "the host has ended its half"
	}
	due := len(c.wrote) + n
	for range maxTransferSteps {
		if left := due - len(c.wrote); left > 0 {
			c.write(&r.socketWorld, left)
			guestSocketMoves{r.guestSocketWorld}.signal(c)
		}
		r.run()
		got, err := p.conn.TryRead(buf)
		if from := c.wrote[p.read:]; got > len(from) || !bytes.Equal(buf[:got], from[:got]) {
			r.fail("I-STREAM", "%d bytes are not what was written from %d on", got, p.read)
		}
		p.read += got
		if p.read == due {
			return fmt.Sprintf("%d bytes down", n)
		}
		if err != nil && !errors.Is(err, syscall.EAGAIN) {
			return fmt.Sprintf("down: %v", err)
		}
	}
	return fmt.Sprintf("down: stuck after %d of %d bytes", p.read, due)
}

// up sends n bytes to the host, which reads all of them.
func (r *profileRun) up(p *socketPair, n int) string {
	c := p.peer
	due := len(p.wrote) + n
	for range maxTransferSteps {
		if left := due - len(p.wrote); left > 0 {
			p.write(&r.socketWorld, left)
		}
		r.run()
		c.read(&r.socketWorld, 5000)
		guestSocketMoves{r.guestSocketWorld}.signal(c)
		r.run()
		if len(c.got) == due {
			return fmt.Sprintf("%d bytes up", n)
		}
	}
	return fmt.Sprintf("up: stuck after %d of %d bytes", len(c.got), due)
}

// finishHost ends the host's half: the guest reads the end, and goes on writing.
func (r *profileRun) finishHost(p *socketPair) string {
	c := p.peer
	if _, err := c.out.WriteFIN(); err == nil {
		c.finished = true
	}
	guestSocketMoves{r.guestSocketWorld}.signal(c)
	r.run()
	n, err := p.conn.TryRead(make([]byte, 1))
	if n != 0 || !errors.Is(err, io.EOF) {
		r.fail("HV-12", "%d bytes, %v after the end of the host's half", n, err)
	}
	return "the host has ended its half"
}

func profileSeeds(fs.FS) ([][]byte, error) {
	var seeds [][]byte
	for v := range uint8(7) {
		seeds = append(seeds,
			seed{v}.u8(0).u16(0).u8(2).u16(100).u8(3).u16(50).u8(2).u16(65535).u8(3).u16(65535).u8(4).u16(0).u8(3).u16(9000),
			seed{v}.u8(1).u16(0).u8(3).u16(4089).u8(2).u16(4089).u8(5).u16(9000).u8(4).u16(0).u8(4).u16(0).u8(2).u16(1),
			seed{v}.u8(0).u16(0).u8(1).u16(0).u8(0).u16(0).u8(2).u16(7).u8(8).u16(8).u8(14).u16(9).u8(3).u16(7).u8(9).u16(8).u8(15).u16(9))
	}
	return append(seeds, seed{}.u8(5, 3).u16(1)), nil
}
