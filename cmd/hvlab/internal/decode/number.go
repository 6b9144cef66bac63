package decode

import (
	"fmt"
	"reflect"
	"strconv"
)

// number is a field's value if it is an unsigned integer of any size, else 0.
func number(v any) uint64 {
	if r := reflect.ValueOf(v); r.CanUint() {
		return r.Uint()
	}
	return 0
}

func hexOf(n uint64) string { return fmt.Sprintf("%#x", n) }

// amount is n of a unit: "1 page", "20,480 bytes".
func amount(n int, unit string) string {
	if n != 1 {
		unit += "s"
	}
	return grouped(n) + " " + unit
}

// grouped is n in decimal, in groups of three.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// unlessZero is text unless all of b is zero.
func unlessZero(b []byte, text string) string {
	for _, x := range b {
		if x != 0 {
			return text
		}
	}
	return ""
}

func unlessNumber(n uint64, text string) string {
	if n == 0 {
		return ""
	}
	return text
}
