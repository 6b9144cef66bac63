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
// files, all other packages a TestCatalogue; "folder:TestX" and
// "folder:TestX/sub" name others.
func in(f Fault, folders ...string) row {
	r := row{fault: f}
	for _, folder := range folders {
		folder, name, ok := strings.Cut(folder, ":")
		if !ok && folder == "endpoint" {
			name = "TestScript"
		} else if !ok {
			name = "TestCatalogue"
		}
		top, sub, ok := strings.Cut(name, "/")
		if !ok {
			sub = f.String()
		}
		r.tests = append(r.tests, test{folder, top, sub})
	}
	return r
}

// rows is the catalogue.
var rows = []row{
	in(GC01, "endpoint"),
	in(GC02, "endpoint/live"),
	in(GC03, "sim"),
	in(GC04, "endpoint"),
	in(GC05, "endpoint"),
	in(GC06, "endpoint/live"),
	in(GC07, "ringbuffer", "vmbus/synic"),
	in(GC08, "endpoint/live"),
	in(GC09, "endpoint/live"),
	in(GC10, "endpoint/live"),
	in(GC11, "hvsock"),
	in(GC12, "endpoint"),
	in(GC13, "endpoint"),
	in(GC14, "endpoint/live"),
	in(GC15, "endpoint"),
	in(GC16, "endpoint/live"),
	in(GC17, "endpoint"),
	in(GC18, "hvsock"),
	in(GC19, "endpoint/live"),
	in(GC20, "endpoint"),
	in(GC21, "endpoint"),

	in(HC01, "endpoint"),
	in(HC02, "endpoint"),
	in(HC03, "endpoint:TestScriptRestored"),
	in(HC04, "endpoint"),
	in(HC05, "endpoint/live"),
	in(HC06, "endpoint"),
	in(HC07, "endpoint/live"),
	in(HC08, "endpoint"),
	in(HC09, "endpoint"),
	in(HC10, "endpoint"),
	in(HC11, "endpoint"),
	in(HC12, "endpoint"),
	in(HC13, "endpoint"),
	in(HC14, "endpoint"),
	in(HC15, "sim/services"),
	in(HC16, "vmbus/synic", "endpoint/live"),
	in(HC17, "endpoint"),

	in(RG01, "ringbuffer"),
	in(RG02, "hvsock"),
	in(RG03, "ringbuffer"),
	in(RG04, "ringbuffer"),
	in(RG05, "ringbuffer"),
	in(RG06, "ringbuffer"),
	in(RG07, "ringbuffer"),
	in(RG08, "hvsock"),
	in(RG09, "ringbuffer"),
	in(RG10, "ringbuffer"),
	in(RG11, "ringbuffer"),
	in(RG12, "ringbuffer:TestCatalogue/RG-12-offset", "ringbuffer:TestCatalogue/RG-12-part"),
	in(RG13, "vmbus"),
	in(RG14, "endpoint"),
	in(RG15, "ringbuffer"),
	in(RG16, "ringbuffer"),

	in(HV01, "sim"),
	in(HV02, "sim"),
	in(HV03, "sim"),
	in(HV04, "sim"),
	in(HV05, "hvsock"),
	in(HV06, "sim"),
	in(HV07, "hvsock"),
	in(HV08, "hvsock"),
	in(HV09, "endpoint/live"),
	in(HV10, "sim"),
	in(HV11, "sim"),
	in(HV12, "channel"),
	in(HV13, "channel"),
	in(HV14, "sim"),
	in(HV15, "channel"),
	in(HV16, "channel"),
	in(HV17, "hvsock"),
	in(HV18, "sim"),
	in(HV19, "hvsock"),

	in(SS01, "hvsock"),
	in(SS02, "hvsock"),
	in(SS03, "sim"),
	in(SS04, "hvsock"),
	in(SS05, "hvsock"),
	in(SS06, "channel"),
	in(SS07, "endpoint"),
	in(SS08, "sim"),
	in(SS09, "endpoint/live"),
	in(SS11, "sim/bridge"),
	in(SS12, "sim/bridge:TestCatalogue/SS-12-bytes", "sim/bridge:TestCatalogue/SS-12-seconds"),

	in(GO01, "hvsock/native"),
	in(GO02, "hvsock/native"),
	in(GO03, "hvsock/native:TestCatalogue/GO-03-accept", "hvsock/native:TestCatalogue/GO-03-connect"),
	in(GO04, "hvsock/native"),
	in(GO05, "hvsock/native"),
	in(GO06, "hvsock"),
	in(GO07, "hvsock/native"),
	in(GO08, "hvsock/native"),
	in(GO09, "hvsock/native"),
}
