package winio

import (
	"go/types"
	"slices"
	"testing"

	"github.com/hvlab/hvlab/internal/apidiff"
)

const (
	originalPath = "github.com/Microsoft/go-winio"
	ownPath      = "github.com/hvlab/hvlab/hvsock/compat/winio"
	guidPath     = "github.com/Microsoft/go-winio/pkg/guid"
)

// alsoNeeded are what users of Hyper-V sockets need of the original's other files.
var alsoNeeded = []string{"ErrFileClosed", "ErrTimeout"}

// accepted are the differences from the original, each with its reason.
var accepted = map[string]string{
	"Machine":              "says which simulated machine a call is for; the original has only one machine",
	"Machine.Dial":         "a function of the package, on a machine",
	"Machine.Dialer":       "HvsockDialer, on a machine",
	"Machine.ListenHvsock": "a function of the package, on a machine",
	"On":                   "makes a Machine",
	"Use":                  "chooses the machine of an unchanged program",
	"WinsockError":         "the original returns a windows.Errno, which exists on Windows only",
	"WinsockError.Error":   "likewise",
	"WinsockError.Is":      "likewise",
	"WinsockError.Timeout": "likewise",
	"WinsockError.Unwrap":  "likewise",
}

// An import path swap is all it takes: every exported name of the original's
// hvsock.go is here, with its signature, and a program that uses it compiles
// before and after the swap. The original exists on Windows only.
func TestAPIIsTheOriginals(t *testing.T) {
	windows := apidiff.NewLoader(t, "windows", originalPath, ownPath, guidPath)
	sockets := func(o types.Object) bool {
		return windows.File(o) == "hvsock.go" || slices.Contains(alsoNeeded, o.Name())
	}
	everything := func(types.Object) bool { return true }
	apidiff.Compare(t, apidiff.API(windows.Package(t, originalPath), sockets), apidiff.API(windows.Package(t, ownPath), everything), accepted)
	windows.Program(t, "testdata/original/echo.go")
	windows.Program(t, "testdata/swapped/echo.go")
	apidiff.Swapped(t, "testdata/original/echo.go", "testdata/swapped/echo.go", originalPath, ownPath)
}
