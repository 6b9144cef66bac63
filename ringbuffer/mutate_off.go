//go:build !hvlab_mutate

package ringbuffer

import "github.com/hvlab/hvlab/vmbus/guestmem"

// mutating is true only in the build whose tests play a peer that changes shared
// memory between any two loads: go test -tags hvlab_mutate. Here the compiler
// drops every call below.
const mutating = false

func mutate([]byte) {}

// load32 loads a control word.
func load32(control *guestmem.Page, off int) uint32 { return control.Load32(off) }
