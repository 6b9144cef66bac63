package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// machine describes where this was measured: the processor, and what the
// primitives that bound every candidate cost there.
func machine() string {
	var yards []string
	yard := func(name string, f func(*testing.B)) {
		r := testing.Benchmark(f)
		yards = append(yards, fmt.Sprintf("%s %.1f", name, float64(r.T.Nanoseconds())/float64(r.N)))
	}
	for _, n := range []int{1 << 10, 4 << 10, 16 << 10} {
		from, to := make([]byte, n), make([]byte, n)
		yard("copy "+sizeName(n), func(b *testing.B) {
			for b.Loop() {
				copy(to, from)
			}
		})
	}
	var word atomic.Uint32
	yard("atomic store", func(b *testing.B) {
		for b.Loop() {
			word.Store(1)
		}
	})
	var mu sync.Mutex
	yard("mutex pair", func(b *testing.B) {
		for b.Loop() {
			mu.Lock()
			//lint:ignore SA2001 the pair is what is measured
			mu.Unlock()
		}
	})
	there, back := make(chan struct{}), make(chan struct{})
	go func() {
		for range there {
			back <- struct{}{}
		}
	}()
	yard("channel there and back", func(b *testing.B) {
		for b.Loop() {
			there <- struct{}{}
			<-back
		}
	})
	close(there)
	return fmt.Sprintf("%s, %d CPUs, %s/%s, %s\nns: %s", processor(), runtime.GOMAXPROCS(0), runtime.GOOS, runtime.GOARCH, runtime.Version(), strings.Join(yards, ", "))
}

// processor names the CPU where the system tells in a file, and only there.
func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	var parts []string
	for _, key := range []string{"model name", "cpu family", "model\t", "cpu MHz"} {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(name, key) {
				parts = append(parts, strings.TrimSpace(strings.TrimSpace(name)+" "+strings.TrimSpace(value)))
				break
			}
		}
	}
	if len(parts) == 0 {
		return "unknown processor"
	}
	return strings.Join(parts, ", ")
}
