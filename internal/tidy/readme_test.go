package tidy

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// goBlock is a fenced block of Go in Markdown.
var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// The README's example is the body of sim's Example, which go test runs and
// whose output it compares.
func TestREADMEExampleIsTheOneThatRuns(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	require.NoError(t, err)
	shown := goBlock.FindSubmatch(readme)
	require.NotNil(t, shown, "README.md has no Go block")
	require.Equal(t, exampleBody(t), strings.TrimSpace(string(shown[1])))
}

// exampleBody returns the statements of func Example of sim/example_test.go, as
// they would stand at the top level.
func exampleBody(t *testing.T) string {
	t.Helper()
	for _, s := range sources(t) {
		if s.name != "sim/example_test.go" {
			continue
		}
		source, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(s.name)))
		require.NoError(t, err)
		for _, d := range s.tree.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "Example" {
				continue
			}
			body := string(source[s.set.Position(fn.Body.Lbrace).Offset+1 : s.set.Position(fn.Body.Rbrace).Offset])
			return strings.TrimSpace(strings.ReplaceAll(body, "\n\t", "\n"))
		}
	}
	t.Fatal("sim/example_test.go has no func Example")
	return ""
}
