// Package kerneltest drives a real Linux guest.
package kerneltest
