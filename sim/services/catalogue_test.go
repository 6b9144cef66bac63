package services

import (
	"context"
	"testing"

	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/stretchr/testify/require"
)

// TestCatalogue holds the rows of faults.md, section 1, about protocols above a
// channel. internal/putback/check puts each fault back and runs its row.
func TestCatalogue(t *testing.T) {
	t.Run("HC-15", testMalformedAmongGood)
}

// HC-15: a guest sends malformed packets among good ones, of every length and so
// at every place of its ring, the ends of pages included. They are dropped; the
// service and the requests in between go on.
func testMalformedAmongGood(t *testing.T) {
	h := NewHeartbeat()
	f := start(t, h.Service)
	good := encode(kindHeartbeat, Version{3, 0}, Version{3, 0}, 0, make([]byte, 8))
	good[25] = flagResponse
	for n := range headerBytes + 8 { // cut short, of a whole one
		f.mu.Lock()
		c := f.channel
		require.NoError(t, c.Out.Append(ringbuffer.Header{Type: ringbuffer.InBand}, nil, good[:n]))
		signal := c.Out.Commit()
		f.mu.Unlock()
		if signal {
			c.Signal()
		}
		for range 5 { // together they go round the ring of three pages more than once
			_, err := h.Beat(context.Background())
			require.NoError(t, err, "after %d bytes of nonsense", n)
			require.Equal(t, kindHeartbeat, <-f.kinds)
		}
	}
}
