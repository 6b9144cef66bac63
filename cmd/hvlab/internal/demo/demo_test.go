package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/trace"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// given is an input with exactly these bytes.
func given(content []byte) *Input {
	return &Input{Name: "given", Bytes: int64(len(content)), ReadCloser: io.NopCloser(bytes.NewReader(content))}
}

// Sizes around everything that has a border: a packet of Linux (4,088 bytes), a
// page, a ring of the smallest and of the default size, a read of the file.
func TestEverySizeThroughEveryRing(t *testing.T) {
	for _, ringPages := range []int{2, 5, 6, 65} {
		for _, size := range []int{0, 1, 4087, 4088, 4089, 4096, 16384, 16385, copyBytes, copyBytes + 1} {
			t.Run(fmt.Sprintf("%d/%d", ringPages, size), func(t *testing.T) {
				content, err := io.ReadAll(Generated("", int64(size), uint64(size)))
				require.NoError(t, err)
				r, err := Run(context.Background(), Options{Input: given(content), RingPages: ringPages})
				require.NoError(t, err)
				want := sha256.Sum256(content)
				require.Equal(t, hex.EncodeToString(want[:]), r.SHA256)
				require.True(t, r.OK(), "%+v", r.Checks)
				require.Len(t, r.Connections, 3)
				for _, c := range r.Connections {
					require.Equal(t, [2]int{ringPages, ringPages}, [2]int{c.Ring.GuestPages, c.Ring.HostPages})
				}
				require.EqualValues(t, size, r.Connections[0].FromGuest.Bytes)
				require.EqualValues(t, sha256.Size, r.Connections[0].FromHost.Bytes)
			})
		}
	}
}

// Every version that has sockets can be forced; guests try all newer ones first.
func TestEveryVersion(t *testing.T) {
	versions := vmbus.Versions()
	for i, v := range versions {
		if v < vmbus.Win10 {
			continue
		}
		r, err := Run(context.Background(), Options{Input: given([]byte("x")), Version: v})
		require.NoError(t, err)
		require.True(t, r.OK(), "%+v", r.Checks)
		tried := 0
		for _, e := range ofGuest(r.Events, "guest1") {
			if is(e, vmbus.TypeInitiateContact) {
				tried++
			}
		}
		require.Equal(t, len(versions)-i, tried, "%v is this far from the newest", v)
	}
}

// The order of a connection's messages is the protocol's (hvsock.md 17): the
// guest's request comes before the offer, the host's dial is the offer itself.
func TestMessagesOfAConnection(t *testing.T) {
	r, err := Run(context.Background(), Options{Input: given([]byte("x"))})
	require.NoError(t, err)
	for _, c := range r.Connections {
		var names []string
		released := false
		for _, e := range ofGuest(r.Events[c.offer:], c.Guest) {
			if field[vmbus.ChannelID](e, "channel_id") == c.Channel && !released {
				names = append(names, e.Name)
				released = is(e, vmbus.TypeRelIDReleased)
			}
		}
		require.Equal(t, []string{
			"OfferChannel", "GPADLHeader", "GPADLCreated", "OpenChannel", "OpenResult",
			"RescindChannelOffer", "CloseChannel", "GPADLTeardown", "RelIDReleased",
		}, names)
		require.Equal(t, c.Dialer == "guest", requested(r.Events[:c.offer], c.endpoint))
	}
	require.Equal(t, "host", r.Connections[2].Dialer)
}

// Whenever a run is interrupted, nothing stays: goleak looks after every test.
func TestInterrupted(t *testing.T) {
	for _, after := range []int{0, 1, 7} {
		ctx, cancel := context.WithCancel(context.Background())
		reads := 0
		r, err := Run(ctx, Options{
			Input: Generated("endless", 1<<50, 1),
			Progress: func(int) {
				if reads++; reads > after {
					cancel()
				}
			},
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Nil(t, r)
		cancel()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Run(ctx, Options{Input: given(nil)})
	require.ErrorIs(t, err, context.Canceled, "before it began")
}

// An input that fails in its middle ends the run with its own error, not with
// what that does to the connection.
func TestInputFails(t *testing.T) {
	broken := errors.New("broken")
	in := io.MultiReader(strings.NewReader("some bytes"), iotest.ErrReader(&InputError{"f", broken}))
	_, err := Run(context.Background(), Options{Input: &Input{Name: "f", ReadCloser: io.NopCloser(in)}})
	require.ErrorIs(t, err, broken)
	require.EqualError(t, err, "f: broken")
}

func TestProgressCountsEveryByte(t *testing.T) {
	total := 0
	_, err := Run(context.Background(), Options{Input: Generated("g", 1<<20+3, 1), Progress: func(n int) { total += n }})
	require.NoError(t, err)
	require.Equal(t, 1<<20+3, total)
}

func TestOpen(t *testing.T) {
	folder := t.TempDir()
	name := filepath.Join(folder, "f")
	require.NoError(t, os.WriteFile(name, []byte("abc"), 0o600))
	in, err := Open(name)
	require.NoError(t, err)
	defer in.Close()
	content, err := io.ReadAll(in)
	require.NoError(t, err)
	require.Equal(t, "abc", string(content))
	require.EqualValues(t, 3, in.Bytes)

	_, err = Open(filepath.Join(folder, "g"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Open(folder)
	require.ErrorIs(t, err, errDirectory)
}

// A pattern does not depend on how it is read, and no block repeats: that is
// what makes a lost or doubled packet visible.
func TestPattern(t *testing.T) {
	const size = 5*patternBytes + 17
	whole, err := io.ReadAll(Generated("", size, 1))
	require.NoError(t, err)
	require.Len(t, whole, size)
	halves, err := io.ReadAll(iotest.HalfReader(Generated("", size, 1)))
	require.NoError(t, err)
	require.Equal(t, whole, halves)
	other, err := io.ReadAll(Generated("", size, 2))
	require.NoError(t, err)
	require.NotEqual(t, whole, other, "another seed")
	blocks := map[string]bool{}
	for b := range slices.Chunk(whole, patternBytes) {
		require.False(t, blocks[string(b)])
		blocks[string(b)] = true
	}
}

// event is a message with one field.
func event(who, name, fieldName string, value any) trace.Event {
	return trace.Event{Who: who, Dir: trace.HostToGuest, Name: name, Fields: []trace.Field{{Name: fieldName, Value: value}}}
}

// A check that cannot fail is worth nothing: each of these breaks one promise.
func TestChecksFail(t *testing.T) {
	id := vmbus.GUID{1}
	guests := []Guest{{Name: "guest1", Version: "6.0"}, {Name: "guest2", Version: "5.3"}}
	for _, c := range []struct {
		check Check
		want  string
	}{
		{checkVersions(guests, 0), "guest2 negotiated 5.3 instead of 6.0"},
		{checkVersions(guests, vmbus.Iron), "guest1 negotiated 6.0 instead of 5.3"},
		{checkSums([]Connection{{Sent: "a", Received: "b", Echoed: "a"}}), "received b"},
		{checkSums([]Connection{{Sent: "a", Received: "a", Echoed: "b"}}), "echoed b"},
		{checkSums([]Connection{{}}), "sent ,"},
		{checkDirections(&Report{Connections: []Connection{{Dialer: "guest", endpoint: id}}}), "dialed the host 0 times"},
		{checkNeighbours(&Report{Guests: guests, Events: []trace.Event{
			event("guest1", "OfferChannel", "instance_id", id), event("guest2", "TLConnectRequest", "endpoint_id", id),
		}}), "buses of guest1 and guest2"},
		{checkEnds(&Report{Connections: []Connection{{Guest: "guest1", Channel: 3}}}), "guest1: channel 3"},
		{checkMessages([]trace.Event{event("guest1", "drop", "error", "why")}, 0), "1 were not understood"},
		{checkMessages([]trace.Event{{Name: "malformed"}}, 0), "1 were not understood"},
		{checkMessages(nil, 5), "5 events are missing"},
		{checkLeft(Left{Connected: []string{"guest1 keeps a page"}}), "guest1 keeps a page"},
		{checkLeft(Left{Closed: []string{"the host keeps a socket"}}), "the host keeps a socket"},
		{checkLeft(Left{GoroutinesBefore: 2, GoroutinesAfter: 5}), "3 goroutines more"},
	} {
		require.False(t, c.check.OK, c.check.Name)
		require.Contains(t, c.check.Detail, c.want)
		require.False(t, (&Report{Checks: []Check{{OK: true}, c.check}}).OK())
	}
}

func TestTextMarksFailures(t *testing.T) {
	r := &Report{Guests: []Guest{{Name: "guest1"}}, Checks: []Check{{Name: "ends", Detail: "why"}}}
	var b strings.Builder
	require.NoError(t, r.WriteText(&b, true))
	require.Contains(t, b.String(), "  FAIL  ends             why\n")
}

// A reader that goes away is an error of the account, in both forms.
func TestWriteFails(t *testing.T) {
	r := &Report{Guests: []Guest{{Name: "guest1"}}}
	full := errWriter{errors.New("disk full")}
	require.ErrorIs(t, r.WriteText(full, true), full.err)
	lines := NewJSONWriter(full)
	lines.Event(trace.Event{Name: "x"})
	require.ErrorIs(t, lines.Report(r), full.err)
}

type errWriter struct{ err error }

func (w errWriter) Write([]byte) (int, error) { return 0, w.err }

func TestCommas(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, commas(n))
	}
}
