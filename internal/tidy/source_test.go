package tidy

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/hvlab/hvlab"

// A source is one parsed Go file of the module.
type source struct {
	name    string // slash-separated, relative to the module's root
	folder  string // the package's path below the module
	test    bool   // a _test.go file
	lines   int
	tree    *ast.File
	imports []string
	set     *token.FileSet
}

// root returns the module's root folder.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	dir = filepath.Join(dir, "..", "..")
	require.FileExists(t, filepath.Join(dir, "go.mod"), "internal/tidy moved: adjust root")
	return dir
}

// files calls fn for every file of the module that belongs to it: what starts
// with a dot is the checkout's own, except .ci and .golangci.yml.
func files(t *testing.T, fn func(name string, data []byte)) {
	t.Helper()
	tree := os.DirFS(root(t))
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".") && name != "." && name != ".ci" && name != ".golangci.yml"
		if d.IsDir() {
			leftover := name == "testdata/rapid" || strings.HasSuffix(name, "/testdata/rapid") // failures that rapid keeps
			if hidden || leftover {
				return fs.SkipDir
			}
			return nil
		}
		if hidden || !d.Type().IsRegular() {
			return nil
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		fn(name, data)
		return nil
	})
	require.NoError(t, err)
}

// sources parses every Go file outside testdata folders.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	files(t, func(name string, data []byte) {
		if path.Ext(name) != ".go" || strings.Contains("/"+name, "/testdata/") {
			return
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, name, data, parser.ParseComments)
		require.NoError(t, err)
		s := source{
			name:   name,
			folder: path.Dir(name),
			test:   strings.HasSuffix(name, "_test.go"),
			lines:  bytes.Count(data, []byte("\n")),
			tree:   tree,
			set:    set,
		}
		for _, spec := range tree.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			s.imports = append(s.imports, p)
		}
		all = append(all, s)
	})
	require.NotEmpty(t, all, "no source found")
	return all
}
