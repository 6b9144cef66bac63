//go:build !race

package main

// scribbles is how many words of shared memory are overwritten at once.
const scribbles = 8
