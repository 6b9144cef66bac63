package conform

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/hvsocktest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) {
	if lendSockets != nil && os.Getenv("HVLAB_LEND") != "" {
		if err := lendSockets(); err != nil {
			fmt.Fprintln(os.Stderr, "lender:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// lendSockets is what this program does inside a guest, where it can.
var lendSockets func() error

// observed is the folder of the repository's records.
const observed = "../../../../testdata/observed"

// simulate asks the simulator everything, now.
func simulate(t *testing.T) []System {
	candidates, stop, err := Simulated()
	require.NoError(t, err)
	systems := make([]System, len(candidates))
	var group errgroup.Group
	for i, c := range candidates {
		group.Go(func() (err error) {
			systems[i], err = c.Observe(context.Background(), Rows())
			return err
		})
	}
	require.NoError(t, group.Wait())
	require.NoError(t, stop())
	return systems
}

// TestRecords is where an unexplained difference fails: between the roles of the
// simulator now, and between it and everything that was seen of real systems.
func TestRecords(t *testing.T) {
	records, err := Load(observed)
	require.NoError(t, err)
	rows, systems := Rows(), simulate(t)
	live := map[string]System{}
	for _, s := range systems {
		live[s.Name] = s
	}
	table := Table{Rows: rows, Systems: systems, Records: records}
	require.Empty(t, table.Broken(), "the simulator keeps its promises")

	real := 0
	for _, r := range records {
		require.Empty(t, Stale(rows, systems[0], r), "%s (%s)", r.Name, r.About)
		if now, ok := live[r.Name]; ok {
			require.Equal(t, r.Answers, now.Answers, "%s: the simulator does something else now; if that is right, record it: hvlab conform -record", r.Name)
			continue
		}
		real++
		table.Systems = append(table.Systems, r)
	}
	require.NotZero(t, real, "a suite that no real system has seen proves nothing")
	for _, d := range table.Unexplained() {
		t.Errorf("unexplained: %v\nif it is right, explain it in testdata/observed; to see the systems again: internal/vsockvm/run -u", d)
	}
}

// What the suite says of a transport with a fault is a broken promise, not a hang
// or a panic.
func TestFaultIsADifference(t *testing.T) {
	candidates, stop, err := Simulated()
	require.NoError(t, err)
	defer func() { require.NoError(t, stop()) }()
	faulty := candidates[0]
	faulty.transport.Name = "faulty"
	faulty.transport.Dial = dialUnended(faulty.transport.Dial)
	rows := Only(Rows(), regexp.MustCompile("^(EOFLatch|Echo)$"))
	good, err := candidates[0].Observe(context.Background(), rows)
	require.NoError(t, err)
	bad, err := faulty.Observe(context.Background(), rows)
	require.NoError(t, err)
	table := Table{Rows: rows, Systems: []System{good, bad}}
	unexplained := table.Unexplained()
	require.Len(t, unexplained, 1)
	require.Equal(t, "EOFLatch", unexplained[0].Row)
	require.Contains(t, unexplained[0].Did, "broken: ")
}

// dialUnended makes connections whose stream never ends in io.EOF.
func dialUnended(dial func(context.Context, hvsock.Addr) (hvsocktest.Conn, error)) func(context.Context, hvsock.Addr) (hvsocktest.Conn, error) {
	return func(ctx context.Context, addr hvsock.Addr) (hvsocktest.Conn, error) {
		c, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return unended{c}, nil
	}
}

type unended struct{ hvsocktest.Conn }

func (u unended) Read(p []byte) (int, error) {
	n, err := u.Conn.Read(p)
	if err != nil {
		err = os.ErrInvalid
	}
	return n, err
}

func TestObserveStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Candidate{}.Observe(ctx, Rows())
	require.ErrorIs(t, err, context.Canceled)
}

// A small table for the tests below.
var (
	promise   = Row{Name: "Echo", Kind: KindPromise}
	question  = Row{Name: "DialNobody", Kind: KindQuestion}
	reference = System{Name: Reference, About: "VMBus 6.0", Answers: []Answer{{"Echo", kept}, {"DialNobody", "ECONNREFUSED"}}}
	other     = System{Name: "AF_VSOCK loopback", About: "Linux 6.1.0-56-cloud-amd64", Answers: []Answer{{"Echo", kept}, {"DialNobody", "ECONNRESET"}}}
	smallRows = []Row{promise, question}
)

func withWhy(s System, row, why string) System {
	s.Why = map[string]string{row: why}
	return s
}

func TestCompare(t *testing.T) {
	diff := Compare(smallRows, reference, other, nil)
	require.Len(t, diff, 1)
	require.Empty(t, diff[0].Why)
	require.Equal(t, "AF_VSOCK loopback (Linux 6.1.0-56-cloud-amd64): DialNobody: ECONNRESET; the reference: ECONNREFUSED", diff[0].String())

	record := withWhy(other, "DialNobody", "it resets")
	record.About = "Linux 6.12"
	require.Equal(t, "it resets", Compare(smallRows, reference, other, []System{record})[0].Why, "another release did the same")

	record.Answers = []Answer{{"DialNobody", "ENODEV"}}
	require.Empty(t, Compare(smallRows, reference, other, []System{record})[0].Why, "the explanation is of another answer")
	record = withWhy(other, "DialNobody", "it resets")
	record.Name = "AF_HYPERV loopback"
	require.Empty(t, Compare(smallRows, reference, other, []System{record})[0].Why, "the explanation is of another system")

	asked := other
	asked.Answers = asked.Answers[:1]
	require.Equal(t, unanswered, Compare(smallRows, reference, asked, nil)[0].Did, "whoever can be asked now has to answer")
	asked.Seen = "2026-11-21"
	require.Empty(t, Compare(smallRows, reference, asked, nil), "a record may be older than a row")
}

func TestStale(t *testing.T) {
	require.Empty(t, Stale(smallRows, reference, withWhy(other, "DialNobody", "it resets")))
	require.Len(t, Stale(smallRows, reference, withWhy(other, "Echo", "but it is the same")), 1)
	require.Len(t, Stale(smallRows, reference, withWhy(other, "Gone", "what was that?")), 1)
	old := other
	old.Answers = append([]Answer{{"Gone", kept}}, old.Answers...)
	require.Len(t, Stale(smallRows, reference, old), 1)
}

func TestBrokenReference(t *testing.T) {
	broken := System{Answers: []Answer{{"Echo", "broken: nothing comes back"}}}
	require.Equal(t, []string{"Echo: broken: nothing comes back"}, Table{Rows: []Row{promise}, Systems: []System{broken}}.Broken())
}

func TestText(t *testing.T) {
	recorded := withWhy(other, "DialNobody", "it resets")
	recorded.Seen = "2026-11-21"
	worse := System{Name: "worse", Answers: []Answer{{"Echo", "broken: nothing comes back"}, {"DialNobody", "ECONNREFUSED"}}}
	newer := other
	newer.About = "Linux 6.12"
	table := Table{Rows: smallRows, Systems: []System{reference, recorded, newer, worse}, Records: []System{recorded}}
	var b bytes.Buffer
	require.NoError(t, table.WriteText(&b))
	want := `
A  simulator guest to host   VMBus 6.0
B  AF_VSOCK loopback         Linux 6.1.0-56-cloud-amd64, recorded 2026-11-21
C  AF_VSOCK loopback         Linux 6.12
D  worse

                          A       B       C       D
Echo                      kept    same    same    differs
    D: broken: nothing comes back
DialNobody                *       differs differs same      ECONNREFUSED
    B C: ECONNRESET
        it resets
`
	require.Equal(t, strings.TrimPrefix(want, "\n"), b.String())
	require.Equal(t, "2 rows, 4 systems: 3 differences, 1 of them unexplained", table.Summary())
	table.Systems = table.Systems[:2]
	require.Equal(t, "2 rows, 2 systems: 1 differences, all explained", table.Summary())
	table.Systems = []System{reference, reference}
	require.Equal(t, "2 rows, 2 systems: no difference", table.Summary())
	table.Systems = table.Systems[:1]
	require.Equal(t, "2 rows, 1 systems", table.Summary())
}

func TestJSONComesBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "there.json")
	var b bytes.Buffer
	require.NoError(t, Table{Rows: smallRows, Systems: []System{reference, other}}.WriteJSON(&b))
	require.NoError(t, os.WriteFile(file, b.Bytes(), 0o600))
	systems, err := ReadSystems(file)
	require.NoError(t, err)
	require.Equal(t, []System{reference, other}, systems)

	require.NoError(t, os.WriteFile(file, []byte("{}"), 0o600))
	_, err = ReadSystems(file)
	require.ErrorContains(t, err, "hvlab conform -json", "it says what it wants")
	require.NoError(t, os.WriteFile(file, []byte("no JSON"), 0o600))
	_, err = ReadSystems(file)
	require.ErrorContains(t, err, file)
}

func TestSave(t *testing.T) {
	folder := t.TempDir()
	day := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	require.NoError(t, Save(folder, reference, other, day))
	records, err := Load(folder)
	require.NoError(t, err)
	require.Len(t, records, 1)
	require.Equal(t, map[string]string{"DialNobody": ""}, records[0].Why, "a place for a human to write")
	require.NotEmpty(t, Table{Rows: smallRows, Systems: []System{reference, other}, Records: records}.Unexplained(), "an empty explanation explains nothing")

	explained := withWhy(other, "DialNobody", "it resets")
	require.NoError(t, Save(folder, reference, explained, day), "explanations come from the file only")
	name := filepath.Join(folder, "conform-af-vsock-loopback-linux-6.1.json")
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, bytes.Replace(b, []byte(`"DialNobody": ""`), []byte(`"DialNobody": "it resets"`), 1), 0o600))

	newer := other
	newer.About = "Linux 6.1.0-99-cloud-amd64"
	require.NoError(t, Save(folder, reference, newer, day.AddDate(0, 0, 1)))
	records, err = Load(folder)
	require.NoError(t, err)
	require.Len(t, records, 1, "one file a release, not one a patch level")
	require.Equal(t, "it resets", records[0].Why["DialNobody"], "the same answer keeps its explanation")
	require.Equal(t, "2026-11-21", records[0].Seen, "nothing new was seen")

	newer.Answers = []Answer{{"Echo", kept}, {"DialNobody", "ENODEV"}}
	require.NoError(t, Save(folder, reference, newer, day.AddDate(0, 0, 2)))
	records, err = Load(folder)
	require.NoError(t, err)
	require.Equal(t, "", records[0].Why["DialNobody"], "a new answer wants a new explanation")
	require.Equal(t, "2026-11-23", records[0].Seen)

	_, err = Load(filepath.Join(folder, "nowhere"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(name, []byte("{"), 0o600))
	_, err = Load(folder)
	require.ErrorContains(t, err, name)
	require.Error(t, Save(folder, reference, newer, day))
}
