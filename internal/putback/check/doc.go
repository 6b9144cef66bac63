// Command check shows that the tests of the catalogue (faults.md, section 1) can
// fail: it builds their packages once with -tags hvlab_putback, runs the tests of
// each row as they are, then once more with the row's fault put back, and prints
// what came of it.
//
//	go run ./internal/putback/check            all rows
//	go run ./internal/putback/check -v GC-05   with the output of the failing test
//	go run ./internal/putback/check -world 100 what hvlab sim finds of them by itself
//
// A row is caught if each of its tests passes without its switch and fails with
// it: a failed assertion, a panic, or every goroutine blocked for good, which
// testing/synctest and the runtime report. A test that only runs out of time has
// not noticed anything. Exit status 1 means that a fault was missed, or that a
// test fails without a switch.
package main
