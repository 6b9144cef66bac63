package main

import (
	"strings"
	"testing"
)

func TestOutput(t *testing.T) {
	var out strings.Builder
	if err := run(&out); err != nil {
		t.Fatal(err)
	}
	const want = `the guest is SERVING, says a peer on network hvsock
the agent is SERVICE_UNKNOWN
the agent is SERVING
the agent is NOT_SERVING
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}
