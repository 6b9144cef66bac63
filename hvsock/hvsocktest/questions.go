package hvsocktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
)

var questions = []Question{
	{"DialNobody", "hvsock.md 5.1, 5.2, 10", "What does a dial get that nobody listens for, and when?", askDialNobody},
	{"DialStranger", "hvsock.md 2.7, 10", "What does a dial to an unknown VM id get?", askDialStranger},
	{"DialWildcard", "hvsock.md 2.7", "What does a dial to the wildcard VM id get?", askDialWildcard},
	{"DialOddService", "hvsock.md 2.6", "What does a dial to a service id that is no port get?", askDialOddService},
	{"ListenOddService", "hvsock.md 2.6", "Can a service id that is no port be listened on?", askListenOddService},
	{"ListenAnyPort", "hvsock.md 2.6", "Where does a listener end up that asks for no service?", askListenAnyPort},
	{"ListenTwiceElsewhere", "hvsock.md 4", "Can two listeners share a service under different VM ids?", askListenTwiceElsewhere},
	{"RemoteService", "hvsock.md 2.7, 15", "Which service does an accepted connection show for the other end?", askRemoteService},
	{"Backlog", "hvsock.md 8", "How many connections wait for Accept, and what does the next dial get?", askBacklog},
	{"ReadJoins", "hvsock.md 6", "Does one Read return what two Writes sent?", askReadJoins},
	{"Capacity", "hvsock.md 6", "How much can be written that nobody reads?", askCapacity},
	{"WriteAfterPeerCloseRead", "hvsock.md 7.2", "What does a Write get after the peer's CloseRead?", askWriteAfterPeerCloseRead},
	{"WriteAfterPeerClose", "hvsock.md 10", "What do Writes get after the peer's Close, in the end?", askWriteAfterPeerClose},
	{"ReadAfterPeerCloseUnread", "hvsock.md 7.4, 7.5", "What does a Read get when the peer closes and leaves our bytes unread?", askReadAfterPeerCloseUnread},
	{"ReadAfterListenerClose", "hvsock.md 16", "What does a Read get on a connection whose listener closes without accepting it?", askReadAfterListenerClose},
	{"ReadAfterLateWrite", "hvsock.md 10, 15", "What does a Read get after Writes that the peer, closed, no longer takes?", askReadAfterLateWrite},
}

// dialFor dials with the transport's own timeout, and says how that went.
func (s *session) dialFor(addr hvsock.Addr) string {
	start := time.Now()
	c, err := s.tr.Dial(context.Background(), addr)
	if err != nil {
		return said(err) + " " + took(start)
	}
	s.keep(c)
	return "success"
}

func askDialNobody(s *session) string {
	_, addr := s.tr.Service()
	return s.dialFor(addr)
}

func askDialStranger(s *session) string {
	_, addr := s.tr.Service()
	addr.VMID = uuid.MustParse("6d3f8c1e-0b52-4a7d-9e44-71c2a5b0d983") // made up
	return s.dialFor(addr)
}

func askDialWildcard(s *session) string {
	_, addr := s.tr.Service()
	addr.VMID = hvsock.Wildcard
	return s.dialFor(addr)
}

var oddService = uuid.MustParse("1f0c6b57-93ad-4e28-8d60-42b7e9f5a3c1") // made up

func askDialOddService(s *session) string {
	_, addr := s.tr.Service()
	addr.ServiceID = oddService
	return s.dialFor(addr)
}

func askListenOddService(s *session) string {
	bind, _ := s.tr.Service()
	bind.ServiceID = oddService
	return s.listenFor(bind)
}

// listenFor listens, and says how that went.
func (s *session) listenFor(addr hvsock.Addr) string {
	l, err := s.tr.Listen(addr)
	if err != nil {
		return said(err)
	}
	s.keep(l)
	return "yes"
}

func askListenAnyPort(s *session) string {
	bind, _ := s.tr.Service()
	bind.ServiceID = uuid.Nil
	l, err := s.tr.Listen(bind)
	if err != nil {
		return said(err)
	}
	s.keep(l)
	addr, ok := l.Addr().(hvsock.Addr)
	if !ok {
		return fmt.Sprintf("at a %T", l.Addr())
	}
	switch port, ok := hvsock.PortFromServiceID(addr.ServiceID); {
	case !ok:
		return "at a service that is no port"
	case port < 1024:
		return "at a privileged port"
	}
	return "at a port above 1023"
}

func askListenTwiceElsewhere(s *session) string {
	bind, _ := s.tr.Service()
	l, err := s.tr.Listen(bind)
	s.must(err, "Listen")
	s.keep(l)
	other := hvsock.Wildcard
	if bind.VMID == other {
		other = hvsock.Loopback
	}
	return s.listenFor(hvsock.Addr{VMID: other, ServiceID: bind.ServiceID})
}

func askRemoteService(s *session) string {
	dialed, accepted := s.connect()
	remote, ok := accepted.RemoteAddr().(hvsock.Addr)
	local, ok2 := dialed.LocalAddr().(hvsock.Addr)
	_, isPort := hvsock.PortFromServiceID(remote.ServiceID)
	switch {
	case !ok:
		return fmt.Sprintf("a %T", accepted.RemoteAddr())
	case ok2 && remote.ServiceID == local.ServiceID && isPort:
		return "the dialer's own port"
	case ok2 && remote.ServiceID == local.ServiceID:
		return "the id of the dialer's endpoint, no port"
	case isPort:
		return "a port the dialer does not know"
	}
	return "an id the dialer does not know"
}

// backlogDials is more connections than the default queue of a listener takes,
// and not so many that a small guest runs out of memory for rings.
const backlogDials = 200

func askBacklog(s *session) string {
	_, addr := s.listen()
	for i := range backlogDials {
		start := time.Now()
		c, err := s.tr.Dial(context.Background(), addr)
		if err != nil {
			return fmt.Sprintf("%d, then %s %s", i, said(err), took(start))
		}
		s.keep(c)
	}
	return fmt.Sprintf("%d or more", backlogDials)
}

func askReadJoins(s *session) string {
	dialed, accepted := s.connect()
	s.write(dialed, []byte("one"))
	s.write(dialed, []byte("two"))
	s.must(dialed.CloseWrite(), "CloseWrite")
	var sizes []int
	for {
		n, err := accepted.Read(make([]byte, 100))
		if err != nil {
			break
		}
		sizes = append(sizes, n)
	}
	if len(sizes) == 1 {
		return "yes"
	}
	return "no"
}

// fillTime is enough to fill a buffer on a machine that is emulated.
const fillTime = 200 * time.Millisecond

func askCapacity(s *session) string {
	dialed, _ := s.connect()
	b := pattern(4<<20, 20)
	s.must(dialed.SetWriteDeadline(time.Now().Add(fillTime)), "SetWriteDeadline")
	n, err := dialed.Write(b)
	s.timedOut(err, "a Write nobody reads")
	for _, limit := range []int{16, 64, 256, 1024} {
		if n <= limit<<10 {
			return fmt.Sprintf("up to %d KiB", limit)
		}
	}
	return "more than 1 MiB"
}

func askWriteAfterPeerCloseRead(s *session) string {
	dialed, accepted := s.connect()
	s.must(accepted.CloseRead(), "CloseRead")
	s.follow(accepted, dialed)
	return s.writeMuch(dialed)
}

func askWriteAfterPeerClose(s *session) string {
	dialed, accepted := s.connect()
	s.must(accepted.Close(), "Close")
	return s.writeMuch(dialed)
}

// writeTime is enough for the news that the other end takes no more to arrive on
// a busy machine, and less than any timer after a Close.
const writeTime = time.Second

// hangs is how long a call waits that is then said to hang.
const hangs = 5 * time.Second

// writeMuch writes until there is an error, at most for a while.
func (s *session) writeMuch(c Conn) string {
	s.must(c.SetWriteDeadline(time.Now().Add(hangs)), "SetWriteDeadline")
	b := pattern(64<<10, 21)
	for start := time.Now(); time.Since(start) < writeTime; {
		_, err := c.Write(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "it hangs"
		}
		if err != nil {
			return said(err)
		}
	}
	return "success for a second"
}

func askReadAfterPeerCloseUnread(s *session) string {
	dialed, accepted := s.connect()
	s.write(dialed, []byte("never read"))
	s.read(accepted, []byte("n")) // the rest has arrived as well
	s.must(accepted.Close(), "Close")
	return s.readOnce(dialed)
}

func askReadAfterListenerClose(s *session) string {
	l, addr := s.listen()
	dialed := s.dial(addr)
	s.must(l.Close(), "closing the listener")
	return s.readOnce(dialed)
}

func askReadAfterLateWrite(s *session) string {
	dialed, accepted := s.connect()
	s.must(accepted.Close(), "Close")
	_ = s.writeMuch(dialed)
	return s.readOnce(dialed)
}

// readOnce says how one Read goes, which may wait.
func (s *session) readOnce(c Conn) string {
	s.must(c.SetReadDeadline(time.Now().Add(hangs)), "SetReadDeadline")
	n, err := c.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "it hangs"
	}
	if n > 0 {
		return "a byte"
	}
	return said(err)
}
