package apidiff

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A Loader type-checks packages as they are on one operating system.
type Loader struct {
	goos string
	set  *token.FileSet
	list map[string]listed
	done map[string]*types.Package
}

// A listed package is what `go list` says of it.
type listed struct {
	ImportPath, Dir string
	GoFiles         []string
	ImportMap       map[string]string // from what the source says to the vendored path
	Error           *struct{ Err string }
}

// NewLoader returns a loader of the packages of goos, for paths and all that they
// import.
func NewLoader(t testing.TB, goos string, paths ...string) *Loader {
	t.Helper()
	args := append([]string{"list", "-e", "-deps", "-json=ImportPath,Dir,GoFiles,ImportMap,Error", "--"}, paths...)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOPROXY=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	l := &Loader{goos: goos, set: token.NewFileSet(), list: map[string]listed{}, done: map[string]*types.Package{}}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return l
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		l.list[p.ImportPath] = p
	}
}

// Package returns a package that NewLoader was asked for. Bodies of functions
// are not looked at.
func (l *Loader) Package(t testing.TB, path string) *types.Package {
	t.Helper()
	p, err := l.load(path)
	if err != nil {
		t.Fatalf("%s for %s: %v", path, l.goos, err)
	}
	return p
}

// Program type-checks a package that is one file, bodies included. What it
// imports must be among the packages of NewLoader.
func (l *Loader) Program(t testing.TB, file string) {
	t.Helper()
	if _, err := l.check(listed{ImportPath: "program", Dir: filepath.Dir(file), GoFiles: []string{filepath.Base(file)}}, false); err != nil {
		t.Errorf("%s for %s: %v", file, l.goos, err)
	}
}

// File is the name of the file that declares o.
func (l *Loader) File(o types.Object) string { return filepath.Base(l.set.Position(o.Pos()).Filename) }

func (l *Loader) load(path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	if p := l.done[path]; p != nil {
		return p, nil
	}
	from, ok := l.list[path]
	switch {
	case !ok:
		return nil, fmt.Errorf("no such package: %s", path)
	case from.Error != nil:
		return nil, errors.New(from.Error.Err)
	}
	p, err := l.check(from, true)
	if err != nil {
		return nil, err
	}
	l.done[path] = p
	return p, nil
}

// check parses and type-checks one package, and before that what it imports.
func (l *Loader) check(from listed, apiOnly bool) (*types.Package, error) {
	var files []*ast.File
	for _, name := range from.GoFiles {
		f, err := parser.ParseFile(l.set, filepath.Join(from.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	config := types.Config{
		Importer: importerFunc(func(path string) (*types.Package, error) {
			if vendored, ok := from.ImportMap[path]; ok {
				path = vendored
			}
			return l.load(path)
		}),
		IgnoreFuncBodies: apiOnly,
		Sizes:            types.SizesFor("gc", "amd64"),
	}
	return config.Check(from.ImportPath, l.set, files, nil)
}

type importerFunc func(path string) (*types.Package, error)

func (f importerFunc) Import(path string) (*types.Package, error) { return f(path) }
