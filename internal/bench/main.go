// Command bench measures hvlab beside net.Pipe, grpc's bufconn, unix sockets,
// TCP loopback and io.Pipe, and prints how many times a rival's speed hvlab has.
//
//	go run -C internal/bench .                   the table, about a minute and a half
//	go run -C internal/bench . -json             every number behind it
//	go run -C internal/bench . -run 'stream/4'   some workloads only
//	go run -C internal/bench . -starts 1 -run 'stream/4KiB' -only hvlab-5 -cpuprofile /tmp/cpu
//
// hvlab is measured whole: a sim.Guest dials a sim.Host, and both ends are used
// as a net.Conn, so locks, checks, statistics and signals through the
// hypervisor's port are all in. bare-5 and bare-33 are the limit it is held
// against: rings with nothing of that but packets and locks (see bareRing).
//
// Machines drift by a factor of two within minutes. Hence all candidates of a
// workload live in one process and take turns, a few milliseconds each; a ratio
// compares two turns of the same round. The whole is repeated in several
// processes, because the luck of memory placement lasts as long as a process.
// A ratio in the table is the median of the processes' medians; its quartiles
// are those of all rounds of all processes.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime/pprof"
	"strconv"
	"time"
)

// options are the flags. A child process gets them too, and start.
type options struct {
	starts, rounds int
	turn           time.Duration
	run, only      string
	json           bool
	cpuProfile     string
	start          int
}

func flags() options {
	var o options
	flag.IntVar(&o.starts, "starts", 5, "processes to measure in")
	flag.IntVar(&o.rounds, "rounds", 15, "turns of each candidate in each process")
	flag.DurationVar(&o.turn, "turn", 4*time.Millisecond, "length of a turn, about")
	flag.StringVar(&o.run, "run", "", "measure the workloads that match this regular expression")
	flag.StringVar(&o.only, "only", "", "measure the candidates that match this regular expression")
	flag.BoolVar(&o.json, "json", false, "print every number as JSON instead of the table")
	flag.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of the first process to this file")
	flag.IntVar(&o.start, "start", 0, "number of this process; set by the command itself")
	flag.Parse()
	return o
}

func main() {
	o := flags()
	var err error
	if o.start > 0 {
		err = child(o)
	} else {
		err = parent(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// child measures once and writes the results to standard output.
func child(o options) error {
	run, err := regexp.Compile(o.run)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if o.cpuProfile != "" && o.start == 1 {
		f, err := os.Create(o.cpuProfile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	var results []result
	for _, w := range workloads() {
		if !run.MatchString(w.name) {
			continue
		}
		r, err := measure(w, only, o)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		results = append(results, r...)
	}
	if run.MatchString(idleName) && only.MatchString(hvlab5) {
		r, err := measureIdle()
		if err != nil {
			return fmt.Errorf("%s: %w", idleName, err)
		}
		results = append(results, r...)
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

// parent runs the children one after another and reports.
func parent(o options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var all []result
	for start := range o.starts {
		cmd := exec.Command(self, append(os.Args[1:], "-start", strconv.Itoa(start+1))...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("process %d: %w", start+1, err)
		}
		var results []result
		if err := json.NewDecoder(bytes.NewReader(out)).Decode(&results); err != nil {
			return fmt.Errorf("process %d: %w", start+1, err)
		}
		all = append(all, results...)
	}
	r := newReport(machine(), o, all)
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return r.print(os.Stdout)
}
