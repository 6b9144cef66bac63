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
	const want = `200 OK: HTTP/1.1 of /index.html, asked of parent:8080
200 OK: HTTP/1.1 of /news.html, asked of parent:8080
200 OK: HTTP/2.0 of /index.html, asked of parent:8080
200 OK: HTTP/2.0 of /news.html, asked of parent:8080
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}
