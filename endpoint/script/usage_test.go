package script

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The usage of each directive names exactly the arguments it reads.
func TestUsage(t *testing.T) {
	word := regexp.MustCompile(`[a-z][a-z0-9.-]*`)
	for _, d := range Directives() {
		require.NotEmpty(t, d.Help, d.Name)
		require.NotContains(t, d.Help, "\n", d.Name)
		if d.Name == "send" || d.Name == "tell" { // theirs are the fields of the message, too
			continue
		}
		a := &args{Directive: Directive{Name: d.Name}, known: map[string]bool{}}
		if d.Name == "world" {
			configure(a)
		} else {
			_ = lookup(d.Name)(NewWorld(), a) // it may be illegal in a new world
		}
		var usage []string
		for _, field := range strings.Fields(d.Args) {
			usage = append(usage, word.FindString(field))
		}
		slices.Sort(usage)
		require.Equal(t, usage, slices.Sorted(maps.Keys(a.known)), d.Name)
	}
}
