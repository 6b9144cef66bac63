package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

// copyBytes is how much is read from a file at a time: many packets, so that the
// connection decides how a ring is filled.
const copyBytes = 256 << 10

// A transferEnd is what one end of a transfer knows when it is over.
type transferEnd struct {
	sum    string // SHA-256 of what the dialer sent, or the listener received
	echoed string // SHA-256 that the listener told the dialer, or of its echo
	bytes  int64
	stats  hvsock.Stats
}

// interrupt makes every call on c fail once ctx is done; stop ends the watch.
func interrupt(ctx context.Context, c interface{ SetDeadline(time.Time) error }) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // fails on a closed c only
}

// send writes everything of in to c and half-closes, then reads the checksum
// that the peer echoes and its FIN, and closes. progress may be nil.
//
// A checksum that differs is no error: the report says so.
func send(ctx context.Context, c *hvsock.Conn, in io.Reader, progress func(bytes int)) (transferEnd, error) {
	defer c.Close()
	defer interrupt(ctx, c)()
	hash := sha256.New()
	var end transferEnd
	buf := make([]byte, copyBytes)
	for {
		n, err := in.Read(buf)
		hash.Write(buf[:n])
		if _, werr := c.Write(buf[:n]); werr != nil {
			return end, fmt.Errorf("sending to the host: %w", werr)
		}
		end.bytes += int64(n)
		if progress != nil {
			progress(n)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return end, err
		}
	}
	if err := c.CloseWrite(); err != nil {
		return end, fmt.Errorf("half-closing towards the host: %w", err)
	}
	// One byte more than a checksum, so that a longer answer is noticed.
	reply, err := io.ReadAll(io.LimitReader(c, sha256.Size+1))
	if err != nil {
		return end, fmt.Errorf("reading the host's checksum: %w", err)
	}
	end.sum = hex.EncodeToString(hash.Sum(nil))
	end.echoed = hex.EncodeToString(reply)
	end.stats = c.Stats()
	return end, c.Close()
}

// receive reads c until its FIN, echoes the SHA-256 of what came, half-closes
// and closes.
func receive(ctx context.Context, c *hvsock.Conn) (transferEnd, error) {
	defer c.Close()
	defer interrupt(ctx, c)()
	hash := sha256.New()
	n, err := io.Copy(hash, c)
	if err != nil {
		return transferEnd{}, fmt.Errorf("receiving from the guest: %w", err)
	}
	sum := hash.Sum(nil)
	if _, err := c.Write(sum); err != nil {
		return transferEnd{}, fmt.Errorf("echoing the checksum: %w", err)
	}
	if err := c.CloseWrite(); err != nil {
		return transferEnd{}, fmt.Errorf("half-closing towards the guest: %w", err)
	}
	end := transferEnd{sum: hex.EncodeToString(sum), bytes: n, stats: c.Stats()}
	return end, c.Close()
}

// call writes text to a peer that echoes, and returns what came back.
func call(ctx context.Context, c *hvsock.Conn, text string) (transferEnd, error) {
	defer c.Close()
	defer interrupt(ctx, c)()
	if _, err := io.WriteString(c, text); err != nil {
		return transferEnd{}, fmt.Errorf("calling the guest: %w", err)
	}
	if err := c.CloseWrite(); err != nil {
		return transferEnd{}, fmt.Errorf("half-closing towards the guest: %w", err)
	}
	echoed, err := io.ReadAll(io.LimitReader(c, int64(len(text))+1))
	if err != nil {
		return transferEnd{}, fmt.Errorf("reading the guest's echo: %w", err)
	}
	end := transferEnd{sum: checksum([]byte(text)), echoed: checksum(echoed), bytes: int64(len(text)), stats: c.Stats()}
	return end, c.Close()
}

// echo sends everything back that c brings until its FIN.
func echo(ctx context.Context, c *hvsock.Conn) (transferEnd, error) {
	defer c.Close()
	defer interrupt(ctx, c)()
	hash := sha256.New()
	n, err := io.Copy(c, io.TeeReader(c, hash))
	if err != nil {
		return transferEnd{}, fmt.Errorf("echoing to the host: %w", err)
	}
	if err := c.CloseWrite(); err != nil {
		return transferEnd{}, fmt.Errorf("half-closing towards the host: %w", err)
	}
	end := transferEnd{sum: hex.EncodeToString(hash.Sum(nil)), bytes: n, stats: c.Stats()}
	return end, c.Close()
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
