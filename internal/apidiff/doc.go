// Package apidiff compares the exported API of two packages, name by name and
// signature by signature. The compatibility packages are held against their
// originals with it, for the operating system the original is for, whatever the
// test runs on: packages are type-checked from source, which needs the go command
// and the module cache, and no network.
package apidiff
