//go:build linux && (amd64 || arm64)

package ringbuffer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// What this process has of a ring shared with another one: the memory, and a
// pipe each way for signals. A pipe also tells that its other end died.
type shared struct {
	pages   []*guestmem.Page
	in, out *os.File
}

// sharedPages is the size of the ring: small, so that both ends often wait.
const sharedPages = 5

func mapRing(t *testing.T, f *os.File) []*guestmem.Page {
	region, err := guestmem.MapShared(f, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, region.Close()) })
	pages := make([]*guestmem.Page, sharedPages)
	for i := range pages {
		pages[i], err = region.Page(uint64(i))
		require.NoError(t, err)
	}
	return pages
}

// ring signals the peer. If that is dead, sleep will tell.
func (s *shared) ring(signal bool) {
	if signal {
		_, _ = s.out.Write([]byte{1})
	}
}

// sleep waits for a signal, and reports false if the peer is dead.
func (s *shared) sleep() bool {
	var signals [4096]byte
	_, err := s.in.Read(signals[:])
	return err == nil
}

// numberedBytes is the payload size of packet i.
func numberedBytes(i uint64) int { return int(i*13%37) * 8 }

func numberedWord(i uint64, at int) uint64 { return i*0x9E3779B97F4A7C15 + uint64(at) }

// send writes packets from first on up to end, and reports the first that is not
// published because the reader died. It calls each before each. A Completion says
// that no more will come.
func (s *shared) send(w *Writer, first, end uint64, each func(i uint64)) (next uint64, err error) {
	body := make([]byte, 37*8)
	for i := first; i <= end; {
		each(i)
		h := Header{Type: InBand, ID: i}
		n := numberedBytes(i)
		if i == end {
			h.Type, n = Completion, 0
		}
		for at := 0; at < n; at += 8 {
			le.PutUint64(body[at:], numberedWord(i, at))
		}
		err := w.Append(h, nil, body[:n])
		if err == nil {
			if i++; i%3 == 0 || i > end {
				s.ring(w.Commit())
			}
			continue
		}
		if !errors.Is(err, ErrFull) {
			return i, err
		}
		s.ring(w.Commit())
		if ready, err := w.SetPending(PacketBytes(n)); err != nil {
			return i, err
		} else if !ready && !s.sleep() {
			w.ClearPending()
			return i, nil
		}
		w.ClearPending()
	}
	return end + 1, nil
}

// receive checks packets that count up, until the Completion or the writer's
// death, and calls each after each. It returns the first number and the one
// after the last, and whether the end was reached.
func (s *shared) receive(r *Reader, each func(i uint64)) (first, next uint64, ended bool, err error) {
	buf := make([]byte, 37*8)
	for alive, started := true, false; ; {
		h, n, err := r.Next(buf)
		switch {
		case errors.Is(err, ErrEmpty):
			s.ring(r.Commit())
			more, err := r.Readable()
			if err != nil || !more && !alive {
				return first, next, false, err
			}
			if !more {
				alive = s.sleep() // what came before death is still to be read
			}
			continue
		case err != nil:
			return first, next, false, err
		case !started:
			started, first, next = true, h.ID, h.ID
		}
		if h.ID != next {
			return first, next, false, fmt.Errorf("packet %d instead of %d", h.ID, next)
		}
		if h.Type == Completion {
			s.ring(r.Commit())
			return first, next, true, nil
		}
		if n != numberedBytes(next) {
			return first, next, false, fmt.Errorf("packet %d has %d bytes", next, n)
		}
		for at := 0; at < n; at += 8 {
			if le.Uint64(buf[at:]) != numberedWord(next, at) {
				return first, next, false, fmt.Errorf("packet %d is wrong at byte %d", next, at)
			}
		}
		next++
		if each(next); next%7 == 0 {
			s.ring(r.Commit())
		}
	}
}

const (
	roleVariable  = "RINGBUFFER_TEST_ROLE"
	rangeVariable = "RINGBUFFER_TEST_RANGE"
)

// TestProcessHelper is not a test but the other process.
func TestProcessHelper(t *testing.T) {
	role := os.Getenv(roleVariable)
	if role == "" {
		return // as a test it has nothing to say
	}
	s := shared{pages: mapRing(t, os.NewFile(3, "memory")), in: os.NewFile(4, "in"), out: os.NewFile(5, "out")}
	var first, end uint64
	_, err := fmt.Sscan(os.Getenv(rangeVariable), &first, &end)
	require.NoError(t, err)
	if role == "writer" {
		w, err := NewWriter(s.pages)
		require.NoError(t, err)
		next, err := s.send(w, first, end, func(uint64) {})
		require.NoError(t, err)
		require.Equal(t, end+1, next)
		return
	}
	r, err := NewReader(s.pages)
	require.NoError(t, err)
	from, to, ended, err := s.receive(r, func(uint64) {})
	require.NoError(t, err)
	require.True(t, ended, "got %d to %d", from, to)
	require.LessOrEqual(t, from, first, "a reader goes on where its predecessor released, or before what was written since")
	require.Equal(t, end, to)
}

// spawn starts the other process in a role and connects s to it.
func spawn(t *testing.T, f *os.File, s *shared, role string, first, end uint64) *exec.Cmd {
	inRead, inWrite, err := os.Pipe()
	require.NoError(t, err)
	outRead, outWrite, err := os.Pipe()
	require.NoError(t, err)
	s.in, s.out = inRead, outWrite
	t.Cleanup(func() { _, _ = inRead.Close(), outWrite.Close() })
	// The watchdog: a lost wake-up becomes a death, which fails the test.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestProcessHelper$")
	cmd.Env = append(os.Environ(), roleVariable+"="+role, fmt.Sprintf("%s=%d %d", rangeVariable, first, end))
	cmd.ExtraFiles = []*os.File{f, outRead, inWrite}
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	_, _ = outRead.Close(), inWrite.Close() // or the child's death would not show
	return cmd
}

// packetsShared is a million unless somebody is in a hurry.
func packetsShared() uint64 {
	if testing.Short() || raceDetector {
		return 50_000
	}
	return 1_000_000
}

func sharedRing(t *testing.T) (*os.File, *shared) {
	f, err := guestmem.NewSharedFile("ring", sharedPages)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	s := &shared{pages: mapRing(t, f)}
	require.NoError(t, Init(s.pages))
	return f, s
}

// TestWriterInAnotherProcess reads from another process that is killed in the
// middle. What it had published arrives, whole; a successor goes on at the
// indices it finds (2.3, 9.1, 13.12).
func TestWriterInAnotherProcess(t *testing.T) {
	f, s := sharedRing(t)
	r, err := NewReader(s.pages)
	require.NoError(t, err)
	end := packetsShared()

	victim := spawn(t, f, s, "writer", 0, end)
	_, next, ended, err := s.receive(r, func(i uint64) {
		if i == end/3 {
			require.NoError(t, victim.Process.Kill())
		}
	})
	require.NoError(t, err)
	require.Error(t, victim.Wait(), "killed")
	require.False(t, ended)
	require.GreaterOrEqual(t, next, end/3)
	require.Less(t, next, end)

	heir := spawn(t, f, s, "writer", next, end)
	from, to, ended, err := s.receive(r, func(uint64) {})
	require.NoError(t, err)
	require.True(t, ended)
	require.Equal(t, []uint64{next, end}, []uint64{from, to})
	require.NoError(t, heir.Wait())
}

// TestReaderInAnotherProcess writes to another process that is killed in the
// middle, wherever it then is in its packets. The writer notices, because nobody
// frees space any more, and goes on with a successor.
func TestReaderInAnotherProcess(t *testing.T) {
	f, s := sharedRing(t)
	w, err := NewWriter(s.pages)
	require.NoError(t, err)
	end := packetsShared()

	victim := spawn(t, f, s, "reader", 0, end)
	next, err := s.send(w, 0, end, func(i uint64) {
		if i == end/3 {
			require.NoError(t, victim.Process.Kill())
		}
	})
	require.NoError(t, err)
	require.Error(t, victim.Wait(), "killed")
	require.GreaterOrEqual(t, next, end/3)
	require.Less(t, next, end, "a full ring keeps the writer from the end")

	heir := spawn(t, f, s, "reader", next, end)
	next, err = s.send(w, next, end, func(uint64) {})
	require.NoError(t, err)
	require.Equal(t, end+1, next)
	require.NoError(t, heir.Wait(), "it has checked every packet from where the victim had released to the end")
	require.Equal(t, end+1, w.Stats().Packets)
}
