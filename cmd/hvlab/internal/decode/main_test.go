package decode

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/internal/golden"
	"github.com/hvlab/hvlab/vmbus"
)

// A vector is one entry of testdata/vectors-control.json.
type vector struct {
	Name    string
	Type    uint32
	Version string
	Fields  map[string]any
	Hex     string
}

func vectors(t testing.TB) []vector {
	t.Helper()
	file, err := os.Open(golden.Root(t) + "/testdata/vectors-control.json")
	require.NoError(t, err)
	defer file.Close()
	dec := json.NewDecoder(file)
	dec.UseNumber() // GPAs do not fit a float64
	var vs []vector
	require.NoError(t, dec.Decode(&vs))
	require.Len(t, vs, 46, "the specification says 46 vectors")
	return vs
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := Bytes(text)
	require.NoError(t, err)
	return b
}

func explain(t testing.TB, b []byte, o Options) *Report {
	t.Helper()
	r, err := Explain(b, o)
	require.NoError(t, err)
	checkReport(t, b, r)
	return r
}

func text(t testing.TB, r *Report) string {
	t.Helper()
	var s strings.Builder
	require.NoError(t, r.WriteText(&s, false))
	return s.String()
}

// checkReport is what holds for every report: each byte of the input is in exactly
// one field, in reading order; what is bad begins at the problem.
func checkReport(t testing.TB, b []byte, r *Report) {
	t.Helper()
	var fields []Field
	for _, p := range r.Parts {
		fields = append(fields, p.Fields...)
	}
	descents, firstBad := 0, -1
	for i, f := range fields {
		if len(f.Bytes) == 0 || f.Offset < 0 || f.Offset+len(f.Bytes) > len(b) {
			t.Fatalf("field %q: %d bytes at %#x of %#x", f.Name, len(f.Bytes), f.Offset, len(b))
		}
		if string(f.Bytes) != string(b[f.Offset:f.Offset+len(f.Bytes)]) {
			t.Fatalf("field %q at %#x has other bytes", f.Name, f.Offset)
		}
		if i > 0 && f.Offset < fields[i-1].Offset {
			descents++
		}
		if f.Bad && firstBad < 0 {
			firstBad = f.Offset
		}
	}
	if descents > 0 && (r.Kind != Ring || descents > 3) { // data, free space, and back to the data's start
		t.Fatalf("offsets go back %d times", descents)
	}
	slices.SortFunc(fields, func(a, b Field) int { return a.Offset - b.Offset })
	next, end := 0, len(b) // what is missing is missing there
	ends := map[int]bool{} // of messages that do not fill their slot
	for _, f := range fields {
		ends[f.Offset] = ends[f.Offset] || f.Name == "unused"
		if f.Name == "tail" { // the range buffer ends before what nobody announced
			end = f.Offset
		}
		if f.Offset != next {
			t.Fatalf("bytes %#x..%#x are in no field, or in two: %q is at %#x", next, f.Offset, f.Name, f.Offset)
		}
		next += len(f.Bytes)
	}
	if next != len(b) {
		t.Fatalf("the last %d bytes are in no field", len(b)-next)
	}
	switch p := r.Problem; {
	case p == nil && firstBad >= 0:
		t.Fatalf("%#x is bad for no reason", firstBad)
	case p != nil && p.Offset < firstBad && ends[p.Offset]: // too short a message, in a slot that is too long
	case p != nil && firstBad >= 0 && p.Offset != firstBad:
		t.Fatalf("the problem is at %#x, the first bad byte at %#x", p.Offset, firstBad)
	case p != nil && firstBad < 0 && p.Offset != end && r.Kind == Message:
		t.Fatalf("the problem is at %#x, where nothing is bad", p.Offset)
	}
}

// TestVectors: every field of every vector, by name, value and bytes, and what is
// printed of it. OpenVMM's and Linux's layouts made the vectors, not this module.
func TestVectors(t *testing.T) {
	var all strings.Builder
	for _, v := range vectors(t) {
		o := Options{}
		if v.Version != "any" {
			version, err := vmbus.ParseVersion(v.Version)
			require.NoError(t, err)
			o.Negotiated = vmbus.Negotiated{Version: version, Features: vmbus.AllFeatures}
		}
		r := explain(t, unhex(t, v.Hex), o)
		require.Equal(t, Message, r.Kind, v.Name)
		require.Nil(t, r.Problem, v.Name)
		byName := map[string]Field{}
		for _, f := range r.Parts[0].Fields {
			byName[f.Name] = f
		}
		require.Equal(t, strconv.Itoa(int(v.Type)), byName["message_type"].Value)
		for name, want := range v.Fields {
			checkField(t, v, name, want, byName)
		}
		fmt.Fprintf(&all, "== %s\n%s\n", v.Name, text(t, r))
	}
	golden.Check(t, "decode/control.txt", all.String())
}

// checkField compares one field of a vector with the report; what is explained in
// parts is compared by the golden file alone.
func checkField(t *testing.T, v vector, name string, want any, byName map[string]Field) {
	t.Helper()
	f, ok := byName[name]
	switch want := want.(type) {
	case json.Number:
		if !ok {
			require.Contains(t, []string{"padding2", "interrupt_page_or_target_info"}, name, v.Name)
			return
		}
		n, err := strconv.ParseUint(want.String(), 10, 64)
		require.NoError(t, err)
		if name == "padding" {
			return
		}
		got, err := strconv.ParseUint(f.Value, 0, 64)
		require.NoError(t, err)
		require.Equal(t, n, got, "%s: %s", v.Name, name)
	case string:
		if len(want) == 2*vmbus.UserDataBytes {
			if ok {
				require.Equal(t, want, hex.EncodeToString(f.Bytes), "%s: %s", v.Name, name)
			}
			return
		}
		require.Equal(t, want, f.Value, "%s: %s", v.Name, name)
	case []any:
		words := 0
		for n := range byName {
			if strings.Contains(n, "[") {
				words++
			}
		}
		require.Equal(t, len(want), words, v.Name)
	default:
		t.Fatalf("%s: %s is a %T", v.Name, name, want)
	}
}

// TestProblems: the reason and the offset, and what comes before.
func TestProblems(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		o         Options
		offset    int
		reason    string
	}{
		{"nothing", "", Options{}, 0, "have 0 bytes, a message header needs 8"},
		{"type alone", "05000000 00", Options{}, 4, "have 5 bytes, a message header needs 8"},
		{"unknown type", "4d000000 00000000 01", Options{Kind: Message}, 0, "type 77 is unknown"},
		{"cut in a field", "05000000 00000000 02000000 aabb", Options{}, 12, "need 140"},
		{"cut between fields", "05000000 00000000 02000000", Options{}, 12, "need 140"},
		{"cut in a target info", "0e000000 00000000 03000500 00000000 0200", Options{}, 16, "need 32"},
		{"asks for the long form", "0e000000 00000000 00000600 00000000 02000000 08000000", Options{}, 24, "need 48"},
		{"too new", "18000000 00000000 01000000 00000000", Options{Negotiated: vmbus.Negotiated{Version: vmbus.Win10}}, 0, "not part of version 4.0"},
		{"wrong way", "03000000 00000000", Options{Direction: vmbus.HostToGuest}, 0, "came host>guest"},
		{"long form is due", "05000000 00000000" + strings.Repeat("00", 140), Options{Negotiated: vmbus.Negotiated{Version: vmbus.Copper, Features: vmbus.RedirectInterrupt}}, 148, "need 148"},
		{"too long", "03000000 00000000" + strings.Repeat("00", 240), Options{Kind: Message}, 240, "at most 240"},
		{"no ranges", "08000000 00000000 01000000 01000000 0000 0000", Options{}, 18, "there are no ranges"},
		{"empty range", "08000000 00000000 01000000 01000000 1000 0100 0000000000000000 0100000000000000", Options{}, 20, "byte count is 0"},
		{"range offset", "08000000 00000000 01000000 01000000 1000 0100 0100000000100000 0100000000000000", Options{}, 20, "above 0xfff"},
		{"few pages", "08000000 00000000 01000000 01000000 1000 0100 0020000000000000 0100000000000000", Options{}, 36, "needs 2 page numbers, 1 are here"},
		{"range missing", "08000000 00000000 01000000 01000000 1000 0200 0010000000000000 0100000000000000", Options{}, 36, "2 ranges were promised"},
		{"list of words", "0010000000000000 0100000000000000 aa", Options{Kind: GPADL}, 16, "the last has 1 bytes"},
		{"list promised more", "0010000000000000 0100000000000000", Options{Kind: GPADL, Ranges: 2}, 16, "2 ranges were promised"},
		{"slot too short", "01000000 10", Options{Kind: Slot}, 5, "have 5 of 256 bytes"},
		{"slot of 241", "01000000 f1000000" + strings.Repeat("00", 248), Options{}, 4, "a slot holds 240"},
		{"slot cut", "01000000 10000000 0000000000000000 0f000000 00000000 01000000", Options{Kind: Slot}, 28, "need 8"},
		{"post of 241", "01000000 00000000 01000000 f1000000" + strings.Repeat("00", 240), Options{Kind: Post}, 12, "the limit is 240"},
		{"half a control page", strings.Repeat("00", 100), Options{Kind: Ring}, 68, "the control page alone has 4096"},
		{"control page alone", strings.Repeat("00", 4096), Options{Kind: Ring}, 4096, "0 and 0 bytes"},
		{"page and a half", strings.Repeat("00", 4096+6000), Options{}, 4096, "1 and 1904 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := explain(t, unhex(t, c.hex), c.o)
			require.NotNil(t, r.Problem, "%s", text(t, r))
			require.Equal(t, c.offset, r.Problem.Offset, "%s", text(t, r))
			require.Contains(t, r.Problem.Reason, c.reason)
		})
	}
}

// TestKinds: how the kind is guessed, and that a guess does not change the report.
func TestKinds(t *testing.T) {
	slot := "01000000 10000000 0000000000000000 0f000000 00000000 01000000 01000000" + strings.Repeat("00", 224)
	post := "04000000 00000000 01000000 08000000 03000000 00000000" + strings.Repeat("00", 232)
	timer := "10000080 18000000 0000000000000000 01000000 00000000 0500000000000000 0600000000000000" + strings.Repeat("ee", 216)
	for _, c := range []struct {
		hex  string
		want Kind
		last string // name of a field
	}{
		{"03000000 00000000", Message, "reserved"},
		{slot, Slot, "unused"},
		{strings.Repeat("00", 256), Slot, "unused"},
		{timer, Slot, "delivery_time"},
		{post, Post, "unused"},
		{"00b0000000000000" + strings.Repeat("0100000000000000", 11), GPADL, "pfn[10]"},
		{strings.Repeat("00", 8192), Ring, "free"},
	} {
		b := unhex(t, c.hex)
		guessed := explain(t, b, Options{})
		require.Equal(t, c.want, guessed.Kind)
		require.NotEmpty(t, guessed.Guessed)
		require.Nil(t, guessed.Problem, "%s", text(t, guessed))
		named := explain(t, b, Options{Kind: c.want})
		require.Empty(t, named.Guessed)
		require.Equal(t, guessed.Parts, named.Parts)
		require.Contains(t, text(t, named), " "+c.last+" ")
	}
	_, err := Explain(nil, Options{Kind: "tape"})
	require.Error(t, err)
	_, err = Explain(make([]byte, MaxInputBytes+1), Options{})
	require.Error(t, err)
}

// TestOpenChannelForms: only features tell the two forms of OpenChannel apart, so
// without them the length must.
func TestOpenChannelForms(t *testing.T) {
	for _, c := range []struct {
		bytes int
		o     Options
		want  string
	}{
		{148, Options{}, "OpenChannel ("},
		{156, Options{}, "OpenChannel2 ("},
		{240, Options{}, "OpenChannel ("}, // padded; the newest guests that are common do not ask for the features
		{240, Options{Negotiated: newest}, "OpenChannel2 ("},
		{156, Options{Negotiated: vmbus.Negotiated{Version: vmbus.Iron}}, "OpenChannel ("},
	} {
		b := make([]byte, c.bytes)
		b[0] = byte(vmbus.TypeOpenChannel)
		r := explain(t, b, c.o)
		require.True(t, strings.HasPrefix(r.Parts[0].Title, c.want), "%d bytes: %s", c.bytes, r.Parts[0].Title)
		require.Nil(t, r.Problem)
	}
}
