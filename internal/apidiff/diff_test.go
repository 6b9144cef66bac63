package apidiff

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"testing"

	"github.com/stretchr/testify/require"
)

func apiOf(t *testing.T, path, source string) map[string]string {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, "p.go", "package p\n"+source, 0)
	require.NoError(t, err)
	p, err := new(types.Config).Check(path, set, []*ast.File{f}, nil)
	require.NoError(t, err)
	return API(p, func(types.Object) bool { return true })
}

// What a program could notice is a difference; the rest is not.
func TestDifferences(t *testing.T) {
	original := `
		const C = 2
		var V error
		type T struct { A int; b int }
		func (T) M(x int) error { return nil }
		func (*T) P() {}
		func F(t *T, x ...int) (n int) { return 0 }
		type hidden int`
	for name, c := range map[string]struct {
		ours string
		want map[string]string
	}{
		"the same, other names and unexported parts": {
			`const C = 2
			var V error
			type T struct { A int; c string }
			func (T) M(y int) error { return nil }
			func (*T) P() {}
			func F(u *T, y ...int) int { return 0 }`,
			map[string]string{},
		},
		"everything is different": {
			`const C = 3
			var V int
			type T struct { A int64 }
			func (*T) M(y int) error { return nil }
			func (T) P() {}
			func (T) Q() {}
			func F(u *T, y []int) int { return 0 }`,
			map[string]string{
				"C":   "is const untyped int = 3, was const untyped int = 2",
				"V":   "is var int, was var error",
				"T":   "is type struct{A int64}, was type struct{A int}",
				"T.M": "is func (*T) func(int) error, was func (T) func(int) error",
				"T.P": "is func (T) func(), was func (*T) func()",
				"T.Q": "added: func (T) func()",
				"F":   "is func func(*T, []int) int, was func func(*T, ...int) int",
			},
		},
	} {
		require.Equal(t, c.want, Differences(apiOf(t, "original", original), apiOf(t, "ours", c.ours)), name)
	}
	require.Equal(t, map[string]string{"C": "missing: const untyped int = 2"},
		Differences(apiOf(t, "original", "const C = 2"), apiOf(t, "ours", "")))
}

// A failing is what a comparison tells its test.
type failing struct {
	testing.TB
	said []string
}

func (*failing) Helper()                          {}
func (f *failing) Errorf(format string, a ...any) { f.said = append(f.said, format) }

// A list of accepted differences that nobody keeps up to date is worth nothing.
func TestStaleEntriesFail(t *testing.T) {
	two, three := map[string]string{"C": "const = 2"}, map[string]string{"C": "const = 3"}
	for _, c := range []struct {
		ours, accepted map[string]string
		failures       int
	}{
		{two, nil, 0},
		{three, nil, 1},
		{three, map[string]string{"C": "a reason"}, 0},
		{three, map[string]string{"C": ""}, 1}, // a difference without a reason
		{two, map[string]string{"C": "a reason"}, 1},
	} {
		var f failing
		Compare(&f, two, c.ours, c.accepted)
		require.Len(t, f.said, c.failures, "%v", c)
	}
}
