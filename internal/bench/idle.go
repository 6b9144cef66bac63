package main

import (
	"runtime"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

const (
	idleName        = "idle"
	idleCPUName     = "idle CPU"
	idleConnections = 200
	idleSettle      = 300 * time.Millisecond
	idleWatch       = time.Second
)

// measureIdle returns what each end of an open connection that does nothing
// costs, in bytes: half of what the heap has grown beside the ring pages; and the
// CPU time this process takes with all of them open, in ns per second.
func measureIdle() ([]result, error) {
	const ringPages = 5
	t, err := openHVLab(ringPages, hvsock.Profile{})
	if err != nil {
		return nil, err
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
			return nil, err
		}
		ends = append(ends, a, b)
	}
	each := (heap() - before) / idleConnections
	results := []result{{Workload: idleName, Candidate: hvlab5, Bytes: (each - 2*ringPages*guestmem.PageSize) / 2}}
	time.Sleep(idleSettle) // the collector gives memory back in the background
	start, spent := time.Now(), cpuTime()
	time.Sleep(idleWatch)
	if spent = cpuTime() - spent; spent > 0 || cpuTime() > 0 { // else this system does not tell
		ns := float64(spent) / time.Since(start).Seconds()
		results = append(results, result{Workload: idleCPUName, Candidate: hvlab5, NSPerOp: []float64{ns}})
	}
	runtime.KeepAlive(ends)
	return results, nil
}
