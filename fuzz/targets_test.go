package fuzz

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

// docLine is a line of the table in doc.go.
var docLine = regexp.MustCompile(`(?m)^//\t(?:[\w/.-]+ +)?(Fuzz\w+) `)

// The table in doc.go is where people look for the targets, so it has them all,
// and each of ours is listed by Targets.
func TestTableOfTargets(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	listed, found := map[string]bool{}, map[string]bool{}
	for _, m := range docLine.FindAllSubmatch(doc, -1) {
		listed[string(m[1])] = true
	}
	module := os.DirFS("..")
	require.NoError(t, fs.WalkDir(module, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := fs.ReadFile(module, name)
		for _, m := range fuzzFunc.FindAllSubmatch(text, -1) {
			target := string(m[1])
			found[target] = true
			if strings.HasPrefix(name, "fuzz/") {
				byName(t, strings.TrimPrefix(target, "Fuzz"))
				require.True(t, listed[target], "%s is missing in doc.go", target)
			} else if !listed[target] {
				t.Logf("%s of %s is missing in doc.go", target, name) // its author may not know of the table yet
			}
		}
		return err
	}))
	for target := range listed {
		require.True(t, found[target], "doc.go lists %s, which does not exist", target)
	}
	for _, target := range Targets() {
		require.NotEmpty(t, target.Input)
		require.NotEmpty(t, target.Property)
	}
}

// Without the module's testdata, as other engines run them, the targets still
// have seeds.
func TestSeedsHoldWithoutTestdata(t *testing.T) {
	for _, target := range Targets() {
		seeds, err := target.Seeds(nil)
		require.NoError(t, err, target.Name)
		require.NotEmpty(t, seeds, target.Name)
		for _, s := range seeds {
			require.NoError(t, target.Run(s), "%s %x", target.Name, s)
		}
	}
}

// A target keeps nothing of its input and runs the same way twice: what a
// campaign finds can be found again.
func TestTargetsRepeat(t *testing.T) {
	for _, target := range Targets() {
		seeds, err := target.Seeds(os.DirFS("../testdata"))
		require.NoError(t, err)
		for _, s := range seeds {
			before := string(s)
			require.NoError(t, target.Run(s))
			require.NoError(t, target.Run(s))
			require.Equal(t, before, string(s), target.Name)
			for i := range s { // a hostile caller of ours: the target must not have kept it
				s[i] ^= 0xFF
			}
		}
	}
}
