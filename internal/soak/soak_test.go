package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSoak is both forms for a moment. What a machine that runs other tests does
// to the neighbour's throughput says nothing, so that is for the command alone.
func TestSoak(t *testing.T) {
	o := options{time: time.Second, turn: 50 * time.Millisecond, rate: 5000, seed: 1}
	for name, hostile := range map[string]form{"guest": newHostileGuest, "host": newHostileHost} {
		t.Run(name, func(t *testing.T) {
			r, err := soak(o, hostile)
			require.NoError(t, err)
			t.Logf("\n%v", r)
			require.NoError(t, r.judge(o))
			require.NotZero(t, r.attacks)
			require.NotZero(t, r.lines, "the attacker was noticed")
		})
	}
}
