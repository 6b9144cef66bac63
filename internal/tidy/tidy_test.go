package tidy

import (
	"go/ast"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// helperFloor is above everything: a test helper may import what it likes, and
// only tests (and other helpers) may import it.
const helperFloor = 7

// find returns the row of the package in folder, with its part of the layer
// table. Folders below cmd/hvlab are the command; other folders below internal
// are test helpers, and so are packages below a testdata folder; the examples are
// a module of their own.
func find(folder string) (layer, bool) {
	if l, ok := layers[folder]; ok {
		return l, true
	}
	switch {
	case strings.HasPrefix(folder, "cmd/hvlab/"):
		return layers["cmd/hvlab"], true
	case strings.HasPrefix(folder, "internal/"), strings.HasPrefix(folder, "sim/examples/"), strings.Contains(folder, "/testdata/"):
		return layer{floor: helperFloor, modules: anyModule}, true
	}
	return layer{}, false
}

// wrongImport says why the package in folder may not import path, or "".
func wrongImport(folder string, test bool, imported string) string {
	from, ok := find(folder)
	if !ok {
		return "has no row in the layer table"
	}
	own, ok := strings.CutPrefix(imported, module+"/")
	if !ok {
		return wrongModule(from, test, imported)
	}
	to, ok := find(own)
	switch {
	case !ok:
		return "imports " + own + ", which has no row in the layer table"
	case own == folder: // an external test imports its own package
		return ""
	case to.floor == helperFloor:
		if test || from.floor == helperFloor {
			return ""
		}
		return "imports the test helper " + own
	case slices.Contains(from.beside, own):
		return ""
	case from.floor == 6 && to.floor == 6 && strings.HasPrefix(own, "cmd/hvlab/internal/"):
		return ""
	case own == "hvsock/hvsocktest" && test:
		return ""
	case test && to.floor == from.floor && strings.HasPrefix(own, folder+"/"): // endpoint's tests run endpoint/script
		return ""
	case from.alone && !test:
		return "is a leaf and imports " + own
	case to.floor >= from.floor && !(test && from.alone):
		return "imports " + own + ", which is not below it"
	}
	return ""
}

// wrongModule says why a package may not import the third-party or standard
// package imported, or "". Tests may use any library in go.mod.
func wrongModule(from layer, test bool, imported string) string {
	host, _, _ := strings.Cut(imported, "/")
	if test || !strings.Contains(host, ".") || slices.Equal(from.modules, anyModule) {
		return ""
	}
	for _, m := range from.modules {
		if imported == m || strings.HasPrefix(imported, m+"/") {
			return ""
		}
	}
	return "imports " + imported + ", which its row does not allow"
}

func TestImportsPointDown(t *testing.T) {
	for _, s := range sources(t) {
		for _, p := range s.imports {
			if why := wrongImport(s.folder, s.test, p); why != "" {
				t.Errorf("%s: %s %s", s.name, s.folder, why)
			}
		}
	}
}

// A check that never fails checks nothing: these are the mistakes it is for.
func TestWrongImportsAreFound(t *testing.T) {
	for _, c := range []struct {
		folder   string
		test     bool
		imported string
		wrong    bool
	}{
		{"ringbuffer", false, module + "/channel", true},       // up
		{"offers", false, module + "/channel", true},           // sideways
		{"channel", true, module + "/offers", true},            // sideways in a test
		{"hvsock", false, module + "/hvsock/hvsocktest", true}, // a test helper in the product
		{"endpoint", false, module + "/internal/golden", true}, // likewise
		{"endpoint", true, module + "/endpoint/script", false},
		{"vmbus", false, module + "/vmbus/guestmem", true},             // a leaf importing a leaf
		{"vmbus/trace", false, "github.com/google/uuid", true},         // standard library only
		{"ringbuffer", false, "golang.org/x/sys/unix", true},           // core: stdlib, uuid, x/sync
		{"sidecar", false, "fmt", true},                                // not in the table
		{"vmbus/synic", false, module + "/vmbus/guestmem", false},      // the one exception among leaves
		{"endpoint/live", false, module + "/endpoint", false},          // beside
		{"hvsock", false, module + "/vmbus", false},                    // two floors down
		{"hvsock", true, module + "/hvsock/hvsocktest", false},         // tests may
		{"offers", false, module + "/internal/fsm", false},             // a leaf
		{"offers", true, "github.com/stretchr/testify/require", false}, // tests may
		{"cmd/hvlab", false, module + "/cmd/hvlab/internal/demo", false},
	} {
		why := wrongImport(c.folder, c.test, c.imported)
		require.Equal(t, c.wrong, why != "", "%s imports %s: %q", c.folder, c.imported, why)
	}
}

func TestCoresArePure(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !slices.Contains(cores, s.folder) {
			continue
		}
		for _, p := range s.imports {
			if slices.Contains(impure, p) {
				t.Errorf("%s imports %s, which no core may", s.name, p)
			}
		}
		ast.Inspect(s.tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.ChanType:
				t.Errorf("%s: a core has no goroutine and no channel", s.set.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Sleep", "After", "NewTimer"}, n.Sel.Name) {
					t.Errorf("%s: a core takes the time as an argument", s.set.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

func TestUnsafeStaysInItsPlace(t *testing.T) {
	for _, s := range sources(t) {
		if slices.Contains(s.imports, "unsafe") && unsafeAllowed[s.folder] == "" {
			t.Errorf("%s imports unsafe, which only %v may", s.name, unsafeAllowed)
		}
	}
}

func TestFilesAndFunctionsStayShort(t *testing.T) {
	for _, s := range sources(t) {
		if s.lines > maxFileLines {
			t.Errorf("%s has %d lines, more than %d", s.name, s.lines, maxFileLines)
		}
		for _, d := range s.tree.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			from := s.set.Position(fn.Pos()).Line
			lines := s.set.Position(fn.End()).Line - from + 1
			if lines > maxFunctionLines {
				t.Errorf("%s:%d: %s has %d lines, more than %d", s.name, from, fn.Name.Name, lines, maxFunctionLines)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	said := map[string]bool{}
	for _, s := range sources(t) {
		said[s.folder] = said[s.folder] || !s.test && s.tree.Doc != nil
	}
	for folder, ok := range said {
		if !ok {
			t.Errorf("%s has no package comment", folder)
		}
	}
}

func TestTopLevelIsTheListOfFloors(t *testing.T) {
	entries, err := os.ReadDir(root(t))
	require.NoError(t, err)
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topFolders, e.Name()) {
			t.Errorf("top-level folder %s is not one of %v", e.Name(), topFolders)
		}
	}
}

// Paths of somebody's machine, and hosts that packages come from, are true on
// one machine only.
var local = regexp.MustCompile(`(^|[^\w.$}-])/(?:work|home|root|Users)/\w|\b[A-Z]:\\Users\b|https?://(?:proxy|registry|sum|deb)\.`)

func TestNothingNamesOneMachine(t *testing.T) {
	files(t, func(name string, data []byte) {
		if path.Ext(name) == ".sum" || len(data) > 1<<20 {
			return
		}
		for i, line := range strings.Split(string(data), "\n") {
			if local.MatchString(line) && !strings.Contains(line, "regexp.MustCompile") {
				t.Errorf("%s:%d names a path or host of one machine: %s", name, i+1, strings.TrimSpace(line))
			}
		}
	})
}

// A package whose tests draw values with rapid draws the same ones in every run:
// what fails in somebody's change was not there before it.
func TestRapidTestsHaveAFixedSeed(t *testing.T) {
	draws, fixed := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		draws[s.folder] = draws[s.folder] || s.test && slices.Contains(s.imports, "pgregory.net/rapid")
		fixed[s.folder] = fixed[s.folder] || s.test && slices.Contains(s.imports, module+"/internal/fixedseed")
	}
	require.True(t, draws["endpoint"], "the check has lost its subject")
	for folder := range draws {
		if draws[folder] && !fixed[folder] && folder != "internal/fixedseed" {
			t.Errorf("%s: no test file imports internal/fixedseed", folder)
		}
	}
}
