// Package fixedseed makes the rapid tests of a package repeatable: whoever
// imports it, for its effect alone, draws the same values in every run.
//
//	import _ "github.com/hvlab/hvlab/internal/fixedseed"
//
// A change then fails for what it does and not for what was drawn. The flag and
// the variable that rapid reads win over this package, and 0 means a random seed:
//
//	go test ./endpoint -run TestModel -rapid.seed=0 -rapid.checks=10000
//	go run ./internal/modellong       # every such test, for longer, with new seeds
package fixedseed

import (
	"flag"
	"os"
	"strconv"

	_ "pgregory.net/rapid" // registers the flag before init runs
)

// Seed is what every rapid test starts with.
const Seed = 20261121

func init() {
	if _, given := os.LookupEnv("RAPID_SEED"); given {
		return
	}
	if err := flag.Set("rapid.seed", strconv.Itoa(Seed)); err != nil {
		panic(err) // rapid has renamed its flag
	}
}
