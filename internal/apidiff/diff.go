package apidiff

import (
	"fmt"
	"go/constant"
	"go/types"
	"maps"
	"slices"
	"strings"
	"testing"
)

// API is the exported names of p for which want says yes, each with its
// declaration as text: constants with their values, types with their exported
// fields, and methods as "Type.Method" names of their own. The package's own path
// is left out, so that two packages can be compared.
func API(p *types.Package, want func(types.Object) bool) map[string]string {
	api := map[string]string{}
	for _, name := range p.Scope().Names() {
		if o := p.Scope().Lookup(name); o.Exported() && want(o) {
			add(api, o)
		}
	}
	return api
}

func add(api map[string]string, o types.Object) {
	own := types.RelativeTo(o.Pkg())
	switch o := o.(type) {
	case *types.Const:
		api[o.Name()] = fmt.Sprintf("const %s = %s", types.TypeString(o.Type(), own), value(o.Val()))
	case *types.TypeName:
		api[o.Name()] = "type " + declared(o.Type(), own)
		methods := types.NewMethodSet(types.NewPointer(o.Type()))
		direct := types.NewMethodSet(o.Type())
		for m := range methods.Methods() {
			if !m.Obj().Exported() {
				continue
			}
			receiver := "*" + o.Name()
			if direct.Lookup(o.Pkg(), m.Obj().Name()) != nil {
				receiver = o.Name()
			}
			api[o.Name()+"."+m.Obj().Name()] = "func (" + receiver + ") " + signature(m.Obj().Type(), own)
		}
	case *types.Func:
		api[o.Name()] = "func " + signature(o.Type(), own)
	default:
		api[o.Name()] = "var " + types.TypeString(o.Type(), own)
	}
}

// value is exact, where Value.String shortens.
func value(v constant.Value) string { return v.ExactString() }

// declared is a type's underlying type, of a struct the exported fields.
func declared(t types.Type, own types.Qualifier) string {
	s, ok := t.Underlying().(*types.Struct)
	if !ok {
		return types.TypeString(t.Underlying(), own)
	}
	var fields []string
	for f := range s.Fields() {
		if f.Exported() {
			fields = append(fields, f.Name()+" "+types.TypeString(f.Type(), own))
		}
	}
	return "struct{" + strings.Join(fields, "; ") + "}"
}

// signature is the types of a function; the names of parameters and results are
// no part of an API.
func signature(t types.Type, own types.Qualifier) string {
	s, ok := t.(*types.Signature)
	if !ok {
		return types.TypeString(t, own)
	}
	unnamed := func(vars *types.Tuple) *types.Tuple {
		var out []*types.Var
		for v := range vars.Variables() {
			out = append(out, types.NewParam(v.Pos(), v.Pkg(), "", v.Type()))
		}
		return types.NewTuple(out...)
	}
	plain := types.NewSignatureType(nil, nil, nil, unnamed(s.Params()), unnamed(s.Results()), s.Variadic())
	return types.TypeString(plain, own)
}

// Differences is what a user of original finds changed in ours, by name.
func Differences(original, ours map[string]string) map[string]string {
	diff := map[string]string{}
	for name, declaration := range original {
		switch got, ok := ours[name]; {
		case !ok:
			diff[name] = "missing: " + declaration
		case got != declaration:
			diff[name] = "is " + got + ", was " + declaration
		}
	}
	for name, declaration := range ours {
		if _, ok := original[name]; !ok {
			diff[name] = "added: " + declaration
		}
	}
	return diff
}

// Compare fails t for each difference that accepted does not name, and for each
// name in accepted, with the reason for accepting it, that is no difference.
func Compare(t testing.TB, original, ours, accepted map[string]string) {
	t.Helper()
	diff := Differences(original, ours)
	for _, name := range slices.Sorted(maps.Keys(diff)) {
		if accepted[name] == "" {
			t.Errorf("%s %s", name, diff[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(accepted)) {
		if diff[name] == "" {
			t.Errorf("%s is listed as a difference, and is none", name)
		}
	}
}
