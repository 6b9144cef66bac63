//go:build !unix

package world

import "time"

func cpuTime() time.Duration { return 0 }
