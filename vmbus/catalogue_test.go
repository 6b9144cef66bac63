package vmbus_test

import "testing"

// TestCatalogue holds the rows of faults.md, section 1, about the bytes of a
// message. internal/putback/check puts each fault back and runs its row.
func TestCatalogue(t *testing.T) {
	t.Run("RG-13", TestVectorsAtEveryAlignment)
}
