package main

import (
	"fmt"
	"regexp"
	"slices"
)

// workloads is everything issue 5 lists, in the order of the table.
func workloads() []workload {
	var all []workload
	for _, size := range messageSizes {
		all = append(all, workload{name: "stream/" + sizeName(size), bytes: size, open: over(nil, func(t *transport) (candidate, error) {
			return openStream(t, size)
		})})
	}
	all = append(all,
		workload{name: "ping-pong/64B", bytes: 64, open: over([]string{hvlab33, hvlab5L, hvlab33L, tcpSocket, bare33}, openPingPong)},
		workload{name: "setup", open: over([]string{hvlab33, hvlab5L, hvlab33L, bufconn64, bufconn1M, bare5, bare33}, openSetup)},
		workload{name: "copy/64MiB", bytes: copyBytes, once: true, open: openCopies},
		workload{name: "connections/4KiB", bytes: 4096 * manyConnections, open: openMany},
	)
	for _, size := range []int{64, 1 << 10, 4 << 10} {
		all = append(all, workload{name: "packet/" + sizeName(size), bytes: size, open: func(only *regexp.Regexp) ([]candidate, error) {
			return openPackets(size, only)
		}})
	}
	return all
}

// messageSizes are those of the one-way stream.
var messageSizes = []int{64, 1 << 10, 4 << 10, 16 << 10, 64 << 10}

func sizeName(bytes int) string {
	if bytes < 1<<10 {
		return fmt.Sprintf("%dB", bytes)
	}
	return fmt.Sprintf("%dKiB", bytes>>10)
}

// over makes a workload's candidates: one for each transport but those left
// out.
func over(without []string, open func(*transport) (candidate, error)) func(*regexp.Regexp) ([]candidate, error) {
	return func(only *regexp.Regexp) ([]candidate, error) {
		var all []candidate
		for _, t := range transports {
			if slices.Contains(without, t.name) || !only.MatchString(t.name) {
				continue
			}
			opened, err := t.open()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			opened.name = t.name
			c, err := open(opened)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			c.name = t.name
			all = append(all, c)
		}
		return all, nil
	}
}
