// Package limits holds no code. Its test has the table of every limit that
// hvlab keeps, with the tests that hold it at the limit, below and above it;
// those that need nothing unexported are here, in probes_test.go.
//
// Source: faults.md 5.
package limits
