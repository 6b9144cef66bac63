// Command hvlab is a Hyper-V lab: VMBus, its rings and Hyper-V sockets between a
// host and guests that all live in this process.
//
//	hvlab demo FILE   send a file from a guest to a host over real VMBus bytes
//	hvlab boot        attach an unmodified Linux kernel under /dev/kvm
//	hvlab bridge PATH show a simulated guest's ports as Unix sockets
//	hvlab run FILE    play a scenario of the control plane as a lesson
//	hvlab decode HEX  explain a message or ring memory, field by field
//	hvlab sim         thousands of orders in which everything can happen, checked
//	hvlab conform     the simulator beside real systems, promise by promise
//
// Every verb is one file of this folder: a struct whose fields are its arguments
// and flags, with a Run method, and a field in the type verbs. Exit status: 0 if
// everything held, 1 if something did not, 2 for bad usage, 130 if interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"

	"github.com/alecthomas/kong"
	"github.com/hvlab/hvlab/channel"
)

// verbs is the command line.
type verbs struct {
	Demo demoVerb `cmd:"" help:"Send a file from a guest to a host over real VMBus bytes, and account for every step."`

	Boot   bootVerb   `cmd:"" help:"Attach an unmodified Linux kernel under /dev/kvm."`
	Bridge bridgeVerb `cmd:"" help:"Show a simulated guest's ports as Unix sockets, for socat and programs in any language."`

	Run    runVerb    `cmd:"" help:"Play scenario files of the control plane as a lesson, and compare with what they expect."`
	Decode decodeVerb `cmd:"" help:"Explain a control message, message slot, range list or ring memory, field by field."`
	Sim    simVerb    `cmd:"" help:"Run a host and guests in virtual time, in thousands of orders, and check every invariant after every step."`

	Conform conformVerb `cmd:"" help:"Put the simulator, this machine's sockets and recorded real systems through one suite, side by side."`
}

// Exit statuses.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // as a shell reports SIGINT
)

// output is where a verb writes: results to out, progress to err.
type output struct {
	out io.Writer
	err *os.File
}

func main() { os.Exit(run(os.Args[1:])) }

// run parses args, runs the verb and returns the exit status. On failure it says
// why in one sentence on stderr.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // a second interrupt ends the process at once

	parser, err := newParser()
	if err != nil {
		panic(err) // the grammar above is wrong
	}
	parsed, err := parser.Parse(doubleDashes(args, parser.Model.Node))
	if err != nil {
		fmt.Fprintf(os.Stderr, "hvlab: %v; see hvlab -h\n", err)
		return exitUsage
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(output{out: os.Stdout, err: os.Stderr})
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "hvlab: interrupted")
		return exitInterrupted
	case errors.Is(err, errFindings): // the report has told, and its last line is where to look
		return exitFailed
	}
	fmt.Fprintf(os.Stderr, "hvlab: %v\n", err)
	return exitFailed
}

func newParser() (*kong.Kong, error) {
	return kong.New(new(verbs),
		kong.Name("hvlab"),
		kong.Description("A Hyper-V lab: VMBus, its ring buffers and Hyper-V sockets in one process.\n\n"+
			"Example:  hvlab demo go.sum"),
		kong.Vars{"ring_pages": strconv.Itoa(channel.DefaultRingPages), "kernel_append": kernelAppend},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
}
