package vsock

import (
	"go/types"
	"testing"

	"github.com/hvlab/hvlab/internal/apidiff"
)

const (
	originalPath = "github.com/mdlayher/vsock"
	ownPath      = "github.com/hvlab/hvlab/hvsock/compat/vsock"
)

// accepted are the differences from the original, each with its reason.
var accepted = map[string]string{
	"Machine":                 "says which simulated machine a call is for; the original has only one machine",
	"Machine.ContextID":       "a function of the package, on a machine",
	"Machine.Dial":            "likewise",
	"Machine.DialContext":     "likewise",
	"Machine.FileListener":    "likewise",
	"Machine.Listen":          "likewise",
	"Machine.ListenContextID": "likewise",
	"OnGuest":                 "makes a Machine",
	"OnHost":                  "makes a Machine",
	"Use":                     "chooses the machine of an unchanged program",
}

// An import path swap is all it takes: every exported name of the original is
// here, with its signature.
func TestAPIIsTheOriginals(t *testing.T) {
	everything := func(types.Object) bool { return true }
	l := apidiff.NewLoader(t, "linux", originalPath, ownPath)
	apidiff.Compare(t, apidiff.API(l.Package(t, originalPath), everything), apidiff.API(l.Package(t, ownPath), everything), accepted)
}
