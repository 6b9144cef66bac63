//go:build hvlab_putback

package putback

import (
	"fmt"
	"os"
)

// Built says whether the switches are in this build.
const Built = true

// on is the fault of this process. A name that is none must not pass for a
// fault nobody caught.
var on = choose(os.Getenv("HVLAB_PUTBACK"))

func choose(name string) Fault {
	for _, f := range append(All(), None) {
		if name == f.String() || name == "" && f == None {
			return f
		}
	}
	panic(fmt.Sprintf("putback: HVLAB_PUTBACK=%s is no row of faults.md, section 1", name))
}

// On reports whether f was put back.
func On(f Fault) bool { return on == f }
