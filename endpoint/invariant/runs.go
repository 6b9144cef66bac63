package invariant

import "bytes"

// SaveIdentity is I-SAVE-ID: what save returns can be restored, and saving the
// restored core gives the same bytes. That it then does the same is for
// SameRun to say.
func SaveIdentity(saved []byte, restoreAndSave func([]byte) ([]byte, error)) error {
	again, err := restoreAndSave(saved)
	if err != nil {
		return broken("I-SAVE-ID", "what was saved cannot be restored: %v", err)
	}
	if !bytes.Equal(saved, again) {
		return broken("I-SAVE-ID", "the restored core saves other bytes")
	}
	return nil
}

// NoStaleAction is I-NO-STALE-ACTION: an answer that nobody waits for (see
// endpoint.Answered) leaves the saved core as it was.
func NoStaleAction(before, after []byte) error {
	if !bytes.Equal(before, after) {
		return broken("I-NO-STALE-ACTION", "an answer that was overtaken changed the core")
	}
	return nil
}

// SameRun is I-DETERMINISTIC-IDS: two runs of the same inputs have the same trace,
// ids included.
func SameRun(first, second string) error {
	if first != second {
		return broken("I-DETERMINISTIC-IDS", "the same inputs gave another run:\n%s\nand then:\n%s", first, second)
	}
	return nil
}
