package main

import (
	"runtime"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

const (
	idleName        = "idle"
	idleConnections = 200
)

// measureIdle returns what each end of an open connection that does nothing
// costs, in bytes: half of what the heap has grown beside the ring pages.
func measureIdle() (result, error) {
	const ringPages = 5
	t, err := openHVLab(ringPages)
	if err != nil {
		return result{}, err
	}
	defer t.close()
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // the first one only empties the pools
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := heap()
	var ends []any
	for range idleConnections {
		a, b, err := t.pair()
		if err != nil {
			return result{}, err
		}
		ends = append(ends, a, b)
	}
	each := (heap() - before) / idleConnections
	runtime.KeepAlive(ends)
	return result{Workload: idleName, Candidate: hvlab5, Bytes: (each - 2*ringPages*guestmem.PageSize) / 2}, nil
}
