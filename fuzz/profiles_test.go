package fuzz

import (
	"testing"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
)

// A kind of guest that does not do what the others do is noticed: one that has but
// one socket gets no second connection.
func TestProfilesNoticesADifference(t *testing.T) {
	twoDials := seed{5}.u8(0).u16(0).u8(1).u16(0)
	err := profiles(twoDials, []hvsock.Profile{{}, {Name: "one socket", MaxSockets: 1}}, nil)
	var v *Violation
	require.ErrorAs(t, err, &v)
	require.Equal(t, "profiles agree", v.Property)
	require.Contains(t, v.Detail, "one socket")
}
