package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/cmd/hvlab/internal/demo"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/trace"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// demoVerb is `hvlab demo`.
type demoVerb struct {
	File *string `arg:"" optional:"" help:"File to send; if none is named, 64 MiB are made up."`

	Verbose   bool   `short:"v" help:"Print every control message in one line as it passes."`
	JSON      bool   `name:"json" help:"Print the same as JSON lines, every message among them."`
	Version   string `placeholder:"4.0" help:"Force this VMBus version; Hyper-V sockets exist from 4.0 on."`
	RingPages int    `default:"${ring_pages}" placeholder:"N" help:"Pages of 4 KiB per ring and direction, with the control page (${default})."`
}

// Help is the long text of `hvlab demo -h`.
func (demoVerb) Help() string {
	return `A host and two guests start in this process. guest1 dials a service of the host
and sends the file, the host echoes a SHA-256 of what it received; guest2 does
the same with bytes of its own; then the host dials guest1. The exit status is 1
if a checksum differs or anything is left at the end.

Examples:

    hvlab demo go.sum
    hvlab demo -version 4.0 -ring-pages 65 -v go.sum
    hvlab demo -json | jq 'select(.kind == "result")'
`
}

// A bar is shown for transfers that take long enough to see it move.
const (
	barBytes    = 32 << 20
	barInterval = 50 * time.Millisecond
)

// errBroken is returned when the account has already told what went wrong.
var errBroken = errors.New("the demo broke a promise; see the checks marked FAIL")

// Run runs the demo and prints its account.
func (v *demoVerb) Run(ctx context.Context, o output) error {
	version, err := socketVersion(v.Version)
	if err != nil {
		return err
	}
	if v.RingPages < channel.MinRingPages || v.RingPages > channel.MaxRingPages {
		return fmt.Errorf("a ring cannot have %d pages; -ring-pages takes %d to %d (one of them is the control page)",
			v.RingPages, channel.MinRingPages, channel.MaxRingPages)
	}
	input := demo.Generated("64 MiB made up", demo.GeneratedBytes, 1)
	if v.File != nil {
		if input, err = demo.Open(*v.File); err != nil {
			return err
		}
	}
	defer input.Close()

	opts := demo.Options{Input: input, Version: version, RingPages: v.RingPages}
	lines := demo.NewJSONWriter(o.out)
	switch {
	case v.JSON:
		opts.Event = lines.Event
	case v.Verbose:
		opts.Event = trace.TextSink(o.out)
	}
	bar := v.bar(o, input)
	if bar != nil {
		opts.Progress = func(bytes int) { _ = bar.Add(bytes) } // a bar that cannot be drawn is no failure
	}
	report, err := demo.Run(ctx, opts)
	if bar != nil {
		_ = bar.Clear()
	}
	if err != nil {
		return err
	}
	if v.JSON {
		err = lines.Report(report)
	} else {
		err = report.WriteText(o.out, !v.Verbose)
	}
	if err == nil && !report.OK() {
		return errBroken
	}
	return err
}

// bar returns a progress bar on stderr, or nil: for a large input only, and only
// where somebody can see it move.
func (v *demoVerb) bar(o output, input *demo.Input) *progressbar.ProgressBar {
	if input.Bytes < barBytes || !term.IsTerminal(int(o.err.Fd())) {
		return nil
	}
	return progressbar.NewOptions64(input.Bytes,
		progressbar.OptionSetWriter(o.err),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(barInterval),
		progressbar.OptionSetDescription("guest1 > host"),
	)
}

// socketVersion reads the version to force; "" is the newest there is. A version
// that is unknown or has no Hyper-V sockets is an error.
func socketVersion(text string) (vmbus.Version, error) {
	if text == "" {
		return 0, nil
	}
	version, err := vmbus.ParseVersion(text)
	if err != nil {
		var known []string
		for _, v := range vmbus.Versions() {
			known = append(known, v.String())
		}
		return 0, fmt.Errorf("VMBus has no version %q; there are %s", text, strings.Join(known, ", "))
	}
	if version < vmbus.Win10 {
		return 0, fmt.Errorf("VMBus %v has no Hyper-V sockets, which the demo needs; use %v or newer", version, vmbus.Win10)
	}
	return version, nil
}
