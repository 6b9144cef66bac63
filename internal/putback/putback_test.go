package putback

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The constants are numbered as the catalogue is, or every name would be wrong.
func TestNames(t *testing.T) {
	for f, want := range map[Fault]string{
		None: "none", GC01: "GC-01", GC21: "GC-21", HC01: "HC-01", HC17: "HC-17", RG01: "RG-01", RG16: "RG-16",
		HV01: "HV-01", HV19: "HV-19", SS01: "SS-01", SS12: "SS-12", GO01: "GO-01", GO09: "GO-09", GO09 + 1: "none",
	} {
		require.Equal(t, want, f.String())
	}
	require.Len(t, All(), 94, "rows of section 1")
	require.Equal(t, GO09, All()[93])
}
