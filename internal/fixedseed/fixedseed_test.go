package fixedseed

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Two runs draw the same, unless somebody asks for something else.
func TestTheSameIsDrawn(t *testing.T) {
	if flag.Lookup("rapid.seed").Value.String() == "0" {
		t.Skip("random seeds were asked for")
	}
	draw := func() (all []int) {
		rapid.Check(t, func(t *rapid.T) { all = append(all, rapid.Int().Draw(t, "n")) })
		return all
	}
	require.Equal(t, draw(), draw())
}
