package bridge

import (
	"errors"
	"io"
	"net"
	"sync"

	"github.com/hvlab/hvlab/internal/putback"
)

// A stream is a connection whose halves can be closed one by one: a
// *net.UnixConn or a *hvsock.Conn.
type stream interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
}

// relay carries bytes both ways until both directions have ended, and closes
// both connections. early goes to the guest first.
func relay(client, guest stream, early []byte) {
	var both sync.WaitGroup
	both.Go(func() { pump(guest, client, early) })
	both.Go(func() { pump(client, guest, nil) })
	both.Wait()
	_ = client.Close() // every byte that could go through has gone
	_ = guest.Close()
}

// pump carries one direction to its end, first early and then what from sends.
//
// The end of from's stream becomes the end of to's: that is the half-close. When
// to takes no more, from is told so, and the other direction goes on. When from
// breaks, nothing more can come of either direction.
func pump(to, from stream, early []byte) {
	if len(early) > 0 {
		if _, err := to.Write(early); err != nil {
			_ = from.CloseRead() // fails only if from is gone already
			return
		}
	}
	buf := make([]byte, bufferBytes)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.CloseRead()
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if putback.On(putback.SS11) {
				_ = from.Close()
				_ = to.Close()
			}
			_ = to.CloseWrite() // fails only if to is gone already
			return
		case err != nil:
			_ = to.Close()
			_ = from.Close()
			return
		}
	}
}
