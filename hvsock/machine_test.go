package hvsock

import (
	"testing"

	"github.com/hvlab/hvlab/internal/golden"
	"github.com/stretchr/testify/require"
)

// TestMachineTables holds the state x event matrices of both roles.
func TestMachineTables(t *testing.T) {
	require.NoError(t, guestTransitions.Check())
	require.NoError(t, hostTransitions.Check())
	golden.Check(t, "table/socket-guest.txt", guestTransitions.Matrix())
	golden.Check(t, "table/socket-host.txt", hostTransitions.Matrix())
}
