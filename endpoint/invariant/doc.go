// Package invariant holds the promises that the cores of package endpoint keep
// whatever their peer does, as functions over the events of a run. They are the
// control plane's part of faults.md section 3, under the names used there.
//
//	rules := invariant.NewHost(opts)
//	opts.Observe = rules.Observe
//	host := endpoint.NewHost(opts) // driven by anything, talking to anybody
//	...
//	err := rules.Err()    // the first promise that was broken, a *Violation
//	err = rules.AtRest()  // the same, and every answer that is still owed
//
// A Host checks a host core, a Guest a guest core; each rule is one short function
// in hostrules.go or guestrules.go, over a small model of the run that is made
// from the events alone (hostmodel.go). What is about two runs and not one stands
// in runs.go.
//
// The rules are about the protocol of the specification: with an
// endpoint.Dialect that imitates another host some of them do not hold, and are
// left out by themselves.
package invariant
