package main

import (
	"strings"

	. "github.com/hvlab/hvlab/internal/putback"
)

// A row says which tests show a fault, or why hvlab cannot have it.
type row struct {
	fault Fault
	tests []test
	never string
}

// A test is a package, relative to the module, and a prefix of the names of its
// subtests: GC-17 stands for every scenario file that begins with it.
type test struct{ folder, top, sub string }

func (t test) String() string { return t.folder + " " + t.top + "/" + t.sub }

// pattern is the argument of -test.run.
func (t test) pattern() string { return "^" + t.top + "$/^" + t.sub }

// in is a row with a test in each of these packages. The two cores have scenario
// files, all other packages a TestCatalogue; "folder:TestX" is for others.
func in(f Fault, folders string) row {
	r := row{fault: f}
	for _, folder := range strings.Fields(folders) {
		folder, top, ok := strings.Cut(folder, ":")
		if !ok && folder == "endpoint" {
			top = "TestScript"
		} else if !ok {
			top = "TestCatalogue"
		}
		r.tests = append(r.tests, test{folder, top, f.String()})
	}
	return r
}

// rows is the catalogue.
var rows = []row{
	in(GC01, "endpoint"),
	in(GC04, "endpoint"),
	in(GC05, "endpoint"),
	in(GC12, "endpoint"),
	in(GC13, "endpoint"),
	in(GC15, "endpoint"),
	in(GC17, "endpoint"),
	in(GC20, "endpoint"),
	in(GC21, "endpoint"),

	in(HC01, "endpoint"),
	in(HC02, "endpoint"),
	in(HC03, "endpoint:TestScriptRestored"),
	in(HC04, "endpoint"),
	in(HC06, "endpoint"),
	in(HC08, "endpoint"),
	in(HC09, "endpoint"),
	in(HC10, "endpoint"),
	in(HC11, "endpoint"),
	in(HC12, "endpoint"),
	in(HC13, "endpoint"),
	in(HC14, "endpoint"),
	in(HC17, "endpoint"),

	in(RG14, "endpoint"),

	in(SS07, "endpoint"),
}
