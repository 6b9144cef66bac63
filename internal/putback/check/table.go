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
// files, all other packages a TestCatalogue.
func in(f Fault, folders string) row {
	r := row{fault: f}
	for _, folder := range strings.Fields(folders) {
		top := "TestCatalogue"
		if folder == "endpoint" {
			top = "TestScript"
		}
		r.tests = append(r.tests, test{folder, top, f.String()})
	}
	return r
}

// rows is the catalogue.
var rows = []row{
	in(GC01, "endpoint"),
}
