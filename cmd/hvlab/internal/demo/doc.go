// Package demo is the work of `hvlab demo`: a host and two guests in one
// process, a file that crosses from the first guest to a service of the host,
// and an account of what happened on the bus.
//
// Read it in the order of a run: input.go opens the file, demo.go starts the
// world and ends it, transfer.go holds the applications at both ends,
// messages.go finds the connections in the recorded messages, checks.go decides
// whether the promises held, and report.go with text.go and json.go say so.
package demo
