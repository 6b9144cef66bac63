package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDoubleDashes(t *testing.T) {
	parser, err := newParser()
	require.NoError(t, err)
	for _, c := range []struct{ in, want, why string }{
		{"demo -version 4.0 f", "demo --version=4.0 f", "Go's spelling"},
		{"demo --version 4.0 f", "demo --version=4.0 f", "GNU's spelling"},
		{"demo -version=4.0 f", "demo --version=4.0 f", "joined already"},
		{"demo -ring-pages -1", "demo --ring-pages=-1", "a value that looks like a flag"},
		{"demo -json f", "demo --json f", "a switch takes no value"},
		{"demo -v -h f", "demo -v -h f", "one letter stays"},
		{"demo -json=false", "demo --json=false", "a switch with a value"},
		{"demo -- -json", "demo -- -json", "after -- everything is a file"},
		{"demo -version -- f", "demo --version -- f", "-- is no value"},
		{"demo -version", "demo --version", "kong says what is missing"},
		{"demo - ---json -bogus", "demo - ---json -bogus", "no flag of ours"},
		{"demo version json", "demo version json", "files may be called like flags"},
	} {
		got := doubleDashes(strings.Fields(c.in), parser.Model.Node)
		require.Equal(t, c.want, strings.Join(got, " "), c.why)
	}
}
