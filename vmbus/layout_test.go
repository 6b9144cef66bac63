package vmbus

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLayoutSizes holds each row against its struct and the rows against each
// other, since the table is written by hand.
func TestLayoutSizes(t *testing.T) {
	for i, l := range layouts {
		m := l.New()
		require.Equal(t, l.BodyBytes, binary.Size(m), "%s", l.Name)
		require.Equal(t, l.Type, m.Type(), "%s", l.Name)
		require.Equal(t, l.Name, Name(m))
		require.LessOrEqual(t, l.BodyBytes, MaxBodyBytes, "%s must fit a message slot", l.Name)
		require.False(t, l.AnyOf != 0 && l.Since < Copper, "%s: features exist from Copper on", l.Name)
		if i == 0 {
			continue
		}
		above := layouts[i-1]
		require.LessOrEqual(t, above.Type, l.Type, "%s: rows are in the order of their types", l.Name)
		if above.Type == l.Type {
			require.Greater(t, above.BodyBytes, l.BodyBytes, "%s: a longer form stands above the shorter one", l.Name)
			require.GreaterOrEqual(t, above.Since, l.Since, "%s: newest first", l.Name)
			continue
		}
		require.Equal(t, byNegotiation, above.Choose, "%s: the last row of a type must fit every length", above.Name)
	}
	require.Equal(t, byNegotiation, layouts[len(layouts)-1].Choose)
}

// TestLayoutsCoverEveryType looks for a type without a row or a direction.
func TestLayoutsCoverEveryType(t *testing.T) {
	rows := map[Type]bool{}
	for _, l := range layouts {
		rows[l.Type] = true
	}
	require.Len(t, rows, 29)
	for ty := TypeOfferChannel; ty <= TypeResume; ty++ {
		require.True(t, rows[ty], "type %d", ty)
		require.NotZero(t, ty.Direction(), "type %d", ty)
		require.NotContains(t, ty.String(), "Type(", "type %d", ty)
	}
}

// TestLimits pins the limits of the 240-byte slot.
// Source: vmbus-control.md 4.2.
func TestLimits(t *testing.T) {
	require.Equal(t, 26, MaxHeaderPFNs)
	require.Equal(t, 28, MaxBodyPFNs)
	require.Equal(t, 8190, MaxGPADLPages)
	require.Equal(t, 232, MaxBodyBytes)
	require.Equal(t, HeaderBytes+binary.Size(GPADLHeader{}), MaxPayloadBytes-8*(1+MaxHeaderPFNs)-4, "4 bytes of the slot stay unused")
	require.Equal(t, HeaderBytes+binary.Size(GPADLBody{}), MaxPayloadBytes-8*MaxBodyPFNs)
	require.Equal(t, UserDataBytes, binary.Size(PipeUserData{}))
	require.Equal(t, 26, binary.Size(HVSockUserData{}), "the silo ends at byte 26")
}
