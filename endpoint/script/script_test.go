package script_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hvlab/hvlab/endpoint/script"
	"github.com/hvlab/hvlab/internal/golden"
	"github.com/stretchr/testify/require"
)

// Each mistake of a file is an error that names the line and says what to write.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", `line 1: there is no directive; write for example "connect", then a line "----"`},
		{"# only words\n", `line 1: there is no directive; write for example "connect", then a line "----"`},
		{"\nconnect\n", `line 2: no line "----" ends the directive "connect"; write it below, and the expected trace after it`},
		{"----\n", `line 1: "----" without a directive above it; write for example "connect" on the line before`},
		{"open =1\n----\n", `line 1: "=" without a name before it; write key=value`},
		{"send X words=(1, 2\n----\n", `line 1: words=(...: the list is not closed; write ")" after its last value`},
		{"connect\n----\n----\ntext\n", `line 3: a second "----" opens a trace with blank lines, which two lines "----" must close`},
		{"connect\n----\n----\ntext\n----\n----\nmore\n", `line 7: text after a closing pair of "----"; leave a blank line between them`},

		{"# a\n\nconect\n----\n", `line 3: there is no directive "conect"; write one of: accept, answer, `},
		{"connect now\n----\n", `line 1: "connect" has no argument "now"; it has quiet, then`},
		{"open channel=one\n----\n", `line 1: channel: "one" is no number; write for example 7 or 0x1000`},
		{"open vp=0x100000000\n----\n", `line 1: vp: 0x100000000 is too large; write at most 4294967295`},
		{"open pages=4096\n----\n", `line 1: pages: one GPADL has both rings and at most 8190 pages; write at most 4095`},
		{"open channel\n----\n", `line 1: channel: it needs one value; write channel=VALUE`},
		{"connect then=wait\n----\n", `line 1: then: "wait" is not among its values; write run or stop`},
		{"publish instance=zz\n----\n", `line 1: instance: "zz" is no GUID; write port:1388, or its first eight digits, or all of it`},
		{"publish user=0\n----\n", `line 1: user: "0" is no user data; write at most 120 bytes as pairs of hexadecimal digits`},
		{"world guest=9.9\n----\n", `line 1: guest: `},
		{"dial\n----\n", `line 1: service: "" is no GUID; `},
		{"accept\n----\n", `line 1: nobody has dialed; write "dial service=port:1388 endpoint=port:1" before`},
		{"answer\n----\n", `line 1: no device waits for an answer; write "device answer=manual" before what asks it`},
		{"post\nxyz\n----\n", `line 1: below "post": encoding/hex: invalid byte: U+0078 'x'; write pairs of hexadecimal digits`},
		{"send\n----\n", `line 1: send: which message? write for example send CloseChannel channel_id=1`},
		{"tell Nothing\n----\n", `line 1: tell: no message is called "Nothing"; write one of: AllOffersDelivered, `},
		{"send CloseChannel id=1\n----\n", `line 1: "send" has no argument "id"; it has CloseChannel, channel_id, `},
		{"tell VersionResponse version_supported=256\n----\n", `line 1: version_supported: 256 does not fit into 1 bytes`},
	} {
		_, err := script.Run(c.text)
		require.IsType(t, &script.Mistake{}, err, c.text)
		require.ErrorContains(t, err, c.want, c.text)
	}
}

// What a block is made of.
func TestParse(t *testing.T) {
	const text = `# One.
#
# Two.

post port=4 then=stop words=(1, (2, 3), ) \
    quiet empty=
00 01
  02
----
# no comment: a line of the trace

# Three.
connect
----
----
a

b
----
----

# The end.
`
	f, err := script.Parse(text)
	require.NoError(t, err)
	require.Len(t, f.Blocks, 2)
	b := f.Blocks[0]
	require.Equal(t, "One.\n\nTwo.", b.Comment)
	require.Equal(t, 5, b.Line)
	require.Equal(t, "post port=4 then=stop words=(1, (2, 3), ) quiet empty=", b.String())
	require.Equal(t, []script.Arg{
		{"port", []string{"4"}}, {"then", []string{"stop"}}, {"words", []string{"1", "(2, 3)", ""}},
		{"quiet", nil}, {"empty", []string{""}},
	}, b.Args)
	require.Equal(t, "00 01\n  02", b.Input)
	require.Equal(t, "# no comment: a line of the trace\n", b.Expected)
	b = f.Blocks[1]
	require.Equal(t, "Three.", b.Comment)
	require.Equal(t, 13, b.Line)
	require.Equal(t, "a\n\nb\n", b.Expected, "two more lines of dashes end a trace with blank lines")
	require.Equal(t, text, f.Text([]string{f.Blocks[0].Expected, f.Blocks[1].Expected}), "what did not change stays as it was written")
}

// The scenarios hold (endpoint's TestScript compares the parser with that of
// datadriven and can rewrite them), and are written as Text writes them.
func TestRun(t *testing.T) {
	for _, file := range scenarios(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		results, err := script.Run(string(text))
		require.NoError(t, err, file)
		var got []string
		for _, r := range results {
			require.Equal(t, r.Expected, r.Got, "%s:%d", file, r.Line)
			got = append(got, r.Got)
		}
		f, err := script.Parse(string(text))
		require.NoError(t, err)
		require.Equal(t, strings.TrimRight(string(text), "\n"), strings.TrimRight(f.Text(got), "\n"), file)
	}
}

func scenarios(t testing.TB) []string {
	files, err := filepath.Glob(filepath.Join(golden.Root(t), "testdata", "scenario", "*.txt"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

// FuzzScenarioFile: no file panics, hangs or leaves an error without a line, and
// what Text writes means the same.
func FuzzScenarioFile(f *testing.F) {
	for _, file := range scenarios(f) {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if err := script.CheckFile(text); err != nil {
			t.Fatal(err)
		}
	})
}
