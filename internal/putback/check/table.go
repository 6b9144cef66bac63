package main

import (
	"strings"

	"github.com/hvlab/hvlab/internal/putback"
)

// A row says which tests show a fault, or why hvlab cannot have it.
type row struct {
	fault putback.Fault
	tests []test
	never string
	near  string // how the test differs from the row, where hvlab only has something like it
}

// like is r for something that hvlab has in another form.
func (r row) like(near string) row {
	r.near = near
	return r
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
func in(f putback.Fault, folders ...string) row {
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
	in(putback.GC01, "endpoint"),
	in(putback.GC02, "endpoint/live"),
	in(putback.GC03, "sim"),
	in(putback.GC04, "endpoint"),
	in(putback.GC05, "endpoint"),
	in(putback.GC06, "endpoint/live"),
	in(putback.GC07, "ringbuffer", "vmbus/synic"),
	in(putback.GC08, "endpoint/live"),
	in(putback.GC09, "endpoint/live"),
	in(putback.GC10, "endpoint/live"),
	in(putback.GC11, "hvsock"),
	in(putback.GC12, "endpoint"),
	in(putback.GC13, "endpoint", "hvsock"),
	in(putback.GC14, "endpoint/live"),
	in(putback.GC15, "endpoint"),
	in(putback.GC16, "endpoint/live").like("pages are not shared by an operation that can fail here; that nobody knows their state is what a lost link leaves behind"),
	in(putback.GC17, "endpoint"),
	in(putback.GC18, "hvsock"),
	in(putback.GC19, "endpoint/live").like("there is no log; the lines are those of a trace"),
	in(putback.GC20, "endpoint"),
	in(putback.GC21, "endpoint"),

	in(putback.HC01, "endpoint"),
	in(putback.HC02, "endpoint"),
	in(putback.HC03, "endpoint:TestScriptRestored"),
	in(putback.HC04, "endpoint"),
	in(putback.HC05, "endpoint/live"),
	in(putback.HC06, "endpoint").like("a device is not stopped and started; it is asked again when its guest goes away"),
	in(putback.HC07, "endpoint/live"),
	in(putback.HC08, "endpoint"),
	in(putback.HC09, "endpoint"),
	in(putback.HC10, "endpoint"),
	in(putback.HC11, "endpoint"),
	in(putback.HC12, "endpoint"),
	in(putback.HC13, "endpoint"),
	in(putback.HC14, "endpoint").like("devices are Go code of the same process; the numbers are those of an open and its GPADL"),
	in(putback.HC15, "sim/services"),
	in(putback.HC16, "vmbus/synic", "endpoint/live"),
	in(putback.HC17, "endpoint").like("there are no layers below the host; the number is a channel id"),

	in(putback.RG01, "ringbuffer", "ringbuffer:TestCatalogueOrder"),
	in(putback.RG02, "hvsock"),
	in(putback.RG03, "ringbuffer"),
	in(putback.RG04, "ringbuffer"),
	in(putback.RG05, "ringbuffer"),
	in(putback.RG06, "ringbuffer", "hvsock"),
	in(putback.RG07, "ringbuffer"),
	in(putback.RG08, "hvsock"),
	in(putback.RG09, "ringbuffer"),
	in(putback.RG10, "ringbuffer"),
	in(putback.RG11, "ringbuffer"),
	in(putback.RG12, "ringbuffer:TestCatalogue/RG-12-offset", "ringbuffer:TestCatalogue/RG-12-part"),
	in(putback.RG13, "vmbus").like("the decoder copies; a cast is stood in for by a look at the address"),
	in(putback.RG14, "endpoint").like("every guest has pages of 4 KiB; the ring is as large as one of larger pages"),
	in(putback.RG15, "ringbuffer"),
	in(putback.RG16, "ringbuffer"),

	in(putback.HV01, "sim"),
	in(putback.HV02, "sim"),
	in(putback.HV03, "sim"),
	in(putback.HV04, "sim"),
	in(putback.HV05, "hvsock"),
	in(putback.HV06, "sim"),
	in(putback.HV07, "hvsock"),
	in(putback.HV08, "hvsock"),
	in(putback.HV09, "endpoint/live"),
	in(putback.HV10, "sim"),
	in(putback.HV11, "sim"),
	in(putback.HV12, "channel"),
	in(putback.HV13, "channel").like("no call asks for a count; the count is that of the bytes that PipeReader.View shows"),
	in(putback.HV14, "sim"),
	in(putback.HV15, "channel"),
	in(putback.HV16, "channel"),
	in(putback.HV17, "hvsock"),
	in(putback.HV18, "sim:TestCatalogue/HV-18-replaced", "sim:TestCatalogue/HV-18-pause"),
	in(putback.HV19, "hvsock"),

	in(putback.SS01, "hvsock"),
	in(putback.SS02, "hvsock"),
	in(putback.SS03, "sim").like("a binding is a listener's; what changes is the guest it is bound to"),
	in(putback.SS04, "hvsock"),
	in(putback.SS05, "hvsock"),
	in(putback.SS06, "channel"),
	in(putback.SS07, "endpoint").like("there are no workers that outlive their queue; what comes late is the answer of a device"),
	in(putback.SS08, "sim"),
	in(putback.SS09, "endpoint/live", "sim"),
	in(putback.SS10, "sim:TestCatalogue/SS-10-older", "sim:TestCatalogue/SS-10-save"),
	in(putback.SS11, "sim/bridge"),
	in(putback.SS12, "sim/bridge:TestCatalogue/SS-12-bytes", "sim/bridge:TestCatalogue/SS-12-seconds"),

	in(putback.GO01, "hvsock/native"),
	in(putback.GO02, "hvsock/native"),
	in(putback.GO03, "hvsock/native:TestCatalogue/GO-03-accept", "hvsock/native:TestCatalogue/GO-03-connect"),
	in(putback.GO04, "hvsock/native"),
	in(putback.GO05, "hvsock/native"),
	in(putback.GO06, "hvsock"),
	in(putback.GO07, "hvsock/native"),
	in(putback.GO08, "hvsock/native"),
	in(putback.GO09, "hvsock/native").like("no process connects back but this one: the end that Probe waits for"),
}
