package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"strings"
)

// A test is one test function that draws values with rapid.
type test struct{ pkg, name string }

// list returns the rapid tests of the module in folder root: the test functions
// that call rapid.Check themselves, by package and file.
func list(root string) ([]test, error) {
	var all []test
	tree := os.DirFS(root)
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, "_test.go") || path.Dir(name) == "internal/fixedseed": // that one tests a seed
			return nil
		}
		b, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, b, 0)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") && draws(f) {
				all = append(all, test{path.Dir(name), f.Name.Name})
			}
		}
		return nil
	})
	return all, err
}

// draws reports whether f calls rapid.Check.
func draws(f *ast.FuncDecl) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Check" {
			pkg, named := s.X.(*ast.Ident)
			found = found || named && pkg.Name == "rapid"
		}
		return !found
	})
	return found
}
