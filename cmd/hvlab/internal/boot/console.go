package boot

import (
	"context"
	"io"
	"time"
)

// A typewriter is the guest's serial console, seen from outside: it takes as many
// bytes as fit.
type typewriter interface{ Type(p []byte) int }

// typePause is the wait for a guest that has not read what was typed, or has not
// opened its console yet.
const typePause = 20 * time.Millisecond

// typeInto types what in has on the guest's console until it ends or ctx does.
func typeInto(ctx context.Context, console typewriter, in io.Reader) {
	buf := make([]byte, 256)
	for {
		n, err := in.Read(buf)
		for p := buf[:n]; len(p) > 0; {
			p = p[console.Type(p):]
			if len(p) == 0 {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(typePause):
			}
		}
		if err != nil || ctx.Err() != nil {
			return
		}
	}
}
