package hvsock

import (
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/stretchr/testify/require"
)

// I-DEADLINE: blocked calls fail exactly at the deadline, whoever waits for a
// turn included, and the stream is intact when the deadline is moved on.
func TestDeadlineEndsBlockedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		start := time.Now()
		require.NoError(t, p.a.SetReadDeadline(start.Add(3*time.Second)))
		require.NoError(t, p.a.SetWriteDeadline(start.Add(5*time.Second)))
		var wg sync.WaitGroup
		var mu sync.Mutex
		sent := 0
		for range 3 {
			wg.Go(func() {
				_, err := p.a.Read(make([]byte, 1))
				requireTimeout(t, err)
				require.Equal(t, 3*time.Second, time.Since(start))
			})
			wg.Go(func() {
				n, err := p.a.Write(make([]byte, 1<<20))
				requireTimeout(t, err)
				require.Equal(t, 5*time.Second, time.Since(start))
				mu.Lock()
				defer mu.Unlock()
				sent += n
			})
		}
		wg.Wait()
		_, err := p.a.Read(make([]byte, 1))
		requireTimeout(t, err)

		require.NoError(t, p.a.SetDeadline(time.Time{}), "nothing is sticky")
		mustWrite(t, p.b, "hello")
		mustRead(t, p.a, "hello")
		wg.Go(func() {
			mustWrite(t, p.a, "end")
			require.NoError(t, p.a.CloseWrite())
		})
		got, err := io.ReadAll(p.b)
		require.NoError(t, err)
		require.Equal(t, append(make([]byte, sent), "end"...), got, "exactly what was reported, then the new data")
		wg.Wait()
	})
}

// A partial Write at the deadline reports what it has written (hvsock.md 16).
func TestDeadlinePartialWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		want := pattern(100_000)
		var got []byte
		buf := make([]byte, 777)
		for sent := 0; sent < len(want); {
			require.NoError(t, p.a.SetWriteDeadline(time.Now().Add(time.Millisecond)))
			n, err := p.a.Write(want[sent:])
			sent += n
			if sent < len(want) {
				requireTimeout(t, err)
			}
			m, err := p.b.Read(buf)
			require.NoError(t, err)
			got = append(got, buf[:m]...)
		}
		require.NoError(t, p.a.CloseWrite())
		rest, err := io.ReadAll(p.b)
		require.NoError(t, err)
		require.Equal(t, want, append(got, rest...))
	})
}

// Setting a deadline acts on calls that are blocked already: shorter, longer and
// in the past.
func TestDeadlineMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		start := time.Now()
		require.NoError(t, p.a.SetReadDeadline(start.Add(time.Second)))
		blocked := make(chan error)
		go func() {
			_, err := p.a.Read(make([]byte, 1))
			blocked <- err
		}()
		synctest.Wait()
		require.NoError(t, p.a.SetReadDeadline(start.Add(time.Hour)), "longer")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		select {
		case err := <-blocked:
			t.Fatal("the first deadline was replaced, yet:", err)
		default:
		}
		require.NoError(t, p.a.SetReadDeadline(start.Add(3*time.Second)), "shorter")
		requireTimeout(t, <-blocked)
		require.Equal(t, 3*time.Second, time.Since(start))

		require.NoError(t, p.a.SetReadDeadline(time.Time{}))
		go func() {
			_, err := p.a.Read(make([]byte, 1))
			blocked <- err
		}()
		synctest.Wait()
		require.NoError(t, p.a.SetReadDeadline(time.Unix(1, 0)), "past")
		requireTimeout(t, <-blocked)
		mustWrite(t, p.b, "x")
		_, err := p.a.Read(make([]byte, 1))
		requireTimeout(t, err)
		require.NoError(t, p.a.SetReadDeadline(time.Now().Add(time.Hour)), "revived")
		mustRead(t, p.a, "x")
	})
}

// A timer that fires although it was replaced must not expire its successor, and
// one that fires too early, as after a clock was set back, starts again.
func TestDeadlineStaleTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		d := deadline{clock: live.SystemClock()}
		fired := 0
		check := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return d.check()
		}
		fire := func() {
			mu.Lock()
			defer mu.Unlock()
			if d.check() {
				fired++
			}
		}
		set := func(at time.Time) bool {
			mu.Lock()
			defer mu.Unlock()
			expired, wait := d.set(at)
			if wait > 0 {
				d.timer = time.AfterFunc(wait, fire)
			}
			return expired
		}
		now := time.Now()
		require.False(t, set(now.Add(time.Second)))
		require.False(t, check(), "called early: the time decides")
		require.False(t, set(now.Add(time.Minute)))
		require.False(t, check(), "a stale call of the replaced timer")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		mu.Lock()
		require.Zero(t, fired)
		mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, fired, "an early call must not have lost the timer")
		require.False(t, check(), "once")
		require.False(t, set(time.Time{}))
		require.False(t, d.expired)
		require.False(t, check(), "a stale call when there is no deadline")
		require.True(t, set(time.Now()), "now has passed")
	})
}

// Goroutines and timers per connection are bounded; closing leaves no timer
// that would fire later (goleak cannot see timers, a bubble's clock can).
func TestCloseStopsTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		require.NoError(t, p.a.SetDeadline(time.Now().Add(time.Hour)))
		p.close()
		require.False(t, p.a.in.deadline.timer.Stop(), "stopped already")
		require.False(t, p.a.out.deadline.timer.Stop())
	})
}

func requireTimeout(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}
