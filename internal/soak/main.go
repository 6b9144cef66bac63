// Command soak lets a hostile peer do its worst for a while, next to a
// well-behaved neighbour, and says what that cost:
//
//	go run ./internal/soak -time 5m                # both forms, 5 minutes each
//	go run ./internal/soak -time 5s -peer guest    # a hostile guest against our host
//
// The attacker takes turns with a pause, so that the neighbour's throughput with
// and without it can be compared on a machine that has other things to do; in a
// pause it makes the same messages and throws them away, since the processor
// time that the attacker itself needs is not the host's doing. Its rate is
// bounded by -rate for the same reason: what a guest can post is.
//
// It fails, with exit status 1, if the heap grows beyond the budget of a guest,
// the neighbour keeps less than 0.9 of its throughput or loses a byte,
// goroutines or log lines are not bounded. Source: faults.md 4.4 and 5.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

// options are the flags.
type options struct {
	time  time.Duration
	turn  time.Duration // of attack, and of pause
	rate  int           // attacks in a second; 0 is as many as it can
	share float64       // of its throughput that the neighbour must keep; 0 asks for nothing
	seed  uint64
}

func main() {
	var o options
	var peer string
	flag.DurationVar(&o.time, "time", 5*time.Minute, "how long each form runs")
	flag.DurationVar(&o.turn, "turn", 250*time.Millisecond, "how long the attacker, and the pause after it, takes")
	flag.IntVar(&o.rate, "rate", 5000, "attacks in a second; 0 is no limit, and then the share is only told")
	flag.Float64Var(&o.share, "share", 0.9, "of its throughput that the neighbour must keep")
	flag.Uint64Var(&o.seed, "seed", 1, "of the attacker's choices")
	flag.StringVar(&peer, "peer", "both", "who is hostile: guest, host or both")
	flag.Parse()
	if o.rate == 0 {
		o.share = 0
	}
	if err := run(o, peer); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(o options, peer string) error {
	if o.time <= 0 || o.turn <= 0 || o.rate < 0 {
		return errors.New("-time and -turn must be positive, -rate not negative")
	}
	forms := map[string]form{"guest": newHostileGuest, "host": newHostileHost}
	chosen := []string{peer}
	if peer == "both" {
		chosen = []string{"guest", "host"}
	}
	var failed error
	for _, name := range chosen {
		hostile := forms[name]
		if hostile == nil {
			return fmt.Errorf("-peer %s: guest, host or both", name)
		}
		r, err := soak(o, hostile)
		if err != nil {
			return fmt.Errorf("hostile %s: %w", name, err)
		}
		fmt.Printf("hostile %s\n%v", name, r)
		if err := r.judge(o); err != nil {
			failed = errors.Join(failed, fmt.Errorf("hostile %s: %w", name, err))
		}
	}
	return failed
}
