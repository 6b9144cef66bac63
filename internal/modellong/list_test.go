package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The list is made from the sources, so a test cannot be forgotten; these stand
// for all.
func TestListFindsTheModels(t *testing.T) {
	all, err := list("../..")
	require.NoError(t, err)
	for _, want := range []test{{"endpoint", "TestModel"}, {"endpoint", "TestHonestWorld"}, {"endpoint", "TestRestoredWorld"}} {
		require.Contains(t, all, want)
	}
	require.NotContains(t, all, test{"internal/modellong", "TestListFindsTheModels"}, "it draws nothing")
}

// A batch takes about as long as it should, and grows slowly from a bad estimate.
func TestNext(t *testing.T) {
	require.Equal(t, 600, next(100, time.Second, 6*time.Second))
	require.Equal(t, 1000, next(100, time.Millisecond, time.Minute), "ten times at most")
	require.Equal(t, 100, next(1000, time.Minute, time.Second), "never fewer than rapid's own number")
}
