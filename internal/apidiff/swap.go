package apidiff

import (
	"bytes"
	"flag"
	"os"
	"testing"

	_ "github.com/hvlab/hvlab/internal/golden" // defines -rewrite
)

// Swapped fails t unless the file swapped is the file original with one import
// path replaced. With -rewrite it makes it so.
func Swapped(t testing.TB, original, swapped, from, to string) {
	t.Helper()
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	before, after := []byte("\t\""+from+"\"\n"), []byte("\t\""+to+"\"\n")
	if n := bytes.Count(text, before); n != 1 {
		t.Fatalf("%s imports %s %d times, want once", original, from, n)
	}
	want := bytes.Replace(text, before, after, 1)
	if flag.Lookup("rewrite").Value.String() == "true" {
		if err := os.WriteFile(swapped, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(swapped)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Errorf("%s is not %s with one import path replaced; go test -rewrite makes it so", swapped, original)
	}
}
