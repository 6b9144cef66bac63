package synic_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/synic"
)

// TestCatalogue holds the rows of faults.md, section 1, about message slots and
// ports. internal/putback/check puts each fault back and runs its row.
func TestCatalogue(t *testing.T) {
	t.Run("GC-07", TestSlotBytes)
	t.Run("HC-16", testPostToNobody)
}

// HC-16: a post to a connection id that nobody listens on has a status of its own,
// and is never swallowed: what the poster waits for would never come.
func testPostToNobody(t *testing.T) {
	p := newGuest(t, 1).p
	post := func(id synic.ConnectionID) synic.Status {
		return p.PostMessage(synic.AppendPostMessage(nil, id, []byte("hello")))
	}
	require.Equal(t, synic.StatusInvalidConnectionID, post(7))
	require.NoError(t, p.BindMessages(7, func([]byte) synic.Status { return synic.StatusSuccess }))
	require.Equal(t, synic.StatusSuccess, post(7))
	p.Unbind(7)
	require.Equal(t, synic.StatusInvalidConnectionID, post(7), "the port is gone again")
}
