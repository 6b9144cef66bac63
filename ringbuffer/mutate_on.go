//go:build hvlab_mutate

package ringbuffer

import "github.com/hvlab/hvlab/vmbus/guestmem"

const mutating = true

// onLoad and onLoadWord are called before shared memory is loaded: the next
// thing to happen is one load, or one copy, of exactly those bytes. A test sets
// them; nil does nothing.
var (
	onLoad     func(data []byte)
	onLoadWord func(control *guestmem.Page, off int)
)

func mutate(data []byte) {
	if onLoad != nil {
		onLoad(data)
	}
}

func load32(control *guestmem.Page, off int) uint32 {
	if onLoadWord != nil {
		onLoadWord(control, off)
	}
	return control.Load32(off)
}

// SetMutator sets what is called before shared memory is loaded, for the tests of
// packages that read rings: data with the bytes that are loaded next, word with
// the place of a control word. nil does nothing.
func SetMutator(data func([]byte), word func(control *guestmem.Page, off int)) {
	onLoad, onLoadWord = data, word
}
