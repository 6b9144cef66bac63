// Package tidy holds no code. Its tests keep the rules of the house that no
// compiler checks: which package may import which (the layer table of
// table_test.go), how long a file or function may grow, where unsafe may stand, and
// that every package says what it is for.
//
// The tests read the source as text, all files of all systems at once, so a
// wrong import in a Windows file fails on Linux too.
package tidy
