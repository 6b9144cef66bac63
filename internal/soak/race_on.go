//go:build race

package main

// scribbles is 0 here: a peer that writes where it must not is a data race by
// definition, and the detector would say so.
const scribbles = 0
