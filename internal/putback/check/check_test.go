package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hvlab/hvlab/internal/putback"
	"github.com/stretchr/testify/require"
)

// Every row of the catalogue is in the table, once, with a test or a reason, and
// its constant says what its switch puts back.
func TestTableIsComplete(t *testing.T) {
	texts, err := comments(filepath.Join("..", "faults.go"))
	require.NoError(t, err)
	all := putback.All()
	require.Len(t, rows, len(all))
	for i, r := range rows {
		require.Equal(t, all[i], r.fault, "in the catalogue's order")
		require.NotEqual(t, len(r.tests) > 0, r.never != "", "%v has tests or a reason", r.fault)
		require.NotEmpty(t, texts[constant(r.fault)], "%v", r.fault)
		for _, at := range r.tests {
			require.True(t, strings.HasPrefix(at.sub, r.fault.String()), "%v: a test is named after its row", at)
		}
	}
}

// Every row with tests has a switch outside of tests, and no other row has one.
func TestSwitchesAreInTheCode(t *testing.T) {
	found := map[string]int{}
	on := regexp.MustCompile(`putback\.On\(putback\.(\w+)\)`)
	tree := os.DirFS(filepath.Join("..", "..", ".."))
	require.NoError(t, fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && name != "." {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "internal/putback/") {
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		for _, m := range on.FindAllSubmatch(text, -1) {
			found[string(m[1])]++
		}
		return err
	}))
	for _, r := range rows {
		if r.never == "" {
			require.NotZero(t, found[constant(r.fault)], "%v has no switch", r.fault)
			delete(found, constant(r.fault))
		}
	}
	require.Empty(t, found, "switches of no row, or of one that has a reason for having none")
}

// What a test binary prints decides what is said of it.
func TestUnwell(t *testing.T) {
	const passed = "=== RUN   TestX/GC-05\n--- PASS: TestX (0.00s)\n    --- PASS: TestX/GC-05 (0.00s)\nPASS\n"
	require.Empty(t, unwell(passed, "TestX/GC-05"))
	require.NotEmpty(t, unwell(passed, "TestX/GC-06"), "a test that did not run has not passed")
	require.NotEmpty(t, unwell("testing: warning: no tests to run\nPASS\n", "TestX/GC-05"))
	half := passed + "    --- FAIL: TestX/GC-05-other (0.00s)\n        x_test.go:7: oh\n"
	require.Equal(t, "oh", unwell(half, "TestX/GC-05"), "all that begin with the id count")
	require.NotEmpty(t, unwell(passed+"    --- SKIP: TestX/GC-05-other (0.00s)\n", "TestX/GC-05"))
}

func TestSymptom(t *testing.T) {
	for output, want := range map[string]string{
		"panic: deadlock: all goroutines in bubble are blocked [recovered, repanicked]\n\ngoroutine 1": "deadlock: all goroutines in bubble are blocked",
		"\tError:      \tNot equal:\n\tMessages:   \tnone lost\npanic: deadlock: x\n":                  "none lost",
		"\tError:      \tNot equal:\n":                                            "Not equal:",
		"output didn't match expected:\n  @@ -1 +1 @@\n   same\n  -guest: gone\n": "-guest: gone",
		"expected:\n\n  a\nfound:\n  b\n":                                         "b",
		"exit status 1":                                                           "it fails",
	} {
		require.Equal(t, want, symptom(output))
	}
}
