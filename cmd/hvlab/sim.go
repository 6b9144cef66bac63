package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/hvlab/hvlab/cmd/hvlab/internal/campaign"
	"github.com/hvlab/hvlab/sim/world"
	"github.com/hvlab/hvlab/vmbus"
	"golang.org/x/term"
)

// simVerb is `hvlab sim`.
type simVerb struct {
	Files []string `arg:"" optional:"" help:"Reports to merge, with -merge."`

	Seeds   string `default:"1-100" placeholder:"A-B" help:"Seeds to run, both ends included (${default})."`
	Steps   int    `default:"1000" placeholder:"N" help:"Steps of each run before everything comes to rest (${default})."`
	Legal   bool   `help:"Rescinds, resets, crashes, refused posts: everything must stay live and lossless."`
	Hostile bool   `help:"guest1 and its bus break the rules: everything must stay safe, bounded and isolated."`
	Guests  int    `default:"2" placeholder:"N" help:"Guests of the host (${default})."`
	Version string `placeholder:"5.3" help:"VMBus version of every guest; without it each seed chooses."`
	Rings   int    `name:"ring-pages" placeholder:"N" help:"Pages of 4 KiB per ring; without it each seed chooses."`
	Jobs    int    `short:"j" placeholder:"N" help:"Runs at once; without it one per core."`
	JSON    bool   `name:"json" help:"Print the report as JSON, for -merge."`
	Out     string `default:"findings" placeholder:"DIR" help:"Where the scenarios of findings go (${default})."`

	Shard      string `placeholder:"I/N" help:"Run only every N-th seed, from the I-th, counted from 0."`
	ShardCount int    `placeholder:"N" help:"As -shard, with I from JOB_COMPLETION_INDEX, as a Kubernetes indexed Job sets it."`
	Merge      bool   `help:"Print the sum of the reports in FILES."`

	Inject    bool   `help:"Repeat each seed with a rescind, reset, unload, crash, save, suspension and failed allocation before each of its steps in turn."`
	Scenarios string `placeholder:"DIR|FILE" help:"With -inject: scenario files take the place of seeds."`
	Pairs     bool   `help:"With -scenarios: two faults in each run, one soon after the other."`
	Exhaust   int    `placeholder:"N" help:"Try every order of N choices in a row, after each N-th choice of each seed: for -guests 1 and few steps."`
	Cells     bool   `help:"Run the seeds in every way, and the scenarios with -inject: print who visits which cell of the transition tables."`

	Replay  string `placeholder:"SEED|FILE" help:"Run one seed, or a scenario."`
	Verbose bool   `short:"v" help:"With -replay: print every step and what came of it."`
	Step    bool   `help:"With -replay: wait for Enter before each step."`
}

// Help is the long text of `hvlab sim -h`.
func (simVerb) Help() string {
	return `A host and its guests run in one goroutine and in virtual time; each seed chooses
another order of everything that happens. After each step the invariants are
checked. A run that violates one is shortened to a scenario in DIR; the exit
status is 1 and the scenario's path the last line.

Examples:

    hvlab sim -seeds 1-10000 -legal
    hvlab sim -inject -seeds 1-4 -steps 300
    hvlab sim -inject -scenarios testdata/scenario
    hvlab sim -cells -seeds 1-2000 -scenarios testdata/scenario
    hvlab sim -exhaust 3 -seeds 1-3 -guests 1 -steps 100 -ring-pages 2
    hvlab sim -replay 17 -v
    hvlab sim -replay findings/I-STREAM-seed17.txt -step
    hvlab sim -seeds 1-1000000 -shard 3/8 -json >3.json
    hvlab sim -merge 0.json 1.json 2.json 3.json
`
}

// shrinkTries bounds the work on one finding.
const shrinkTries = 3000

// errFindings is returned when the report has already told what was found.
var errFindings = errors.New("invariants were violated")

// gcPercent lets garbage pile up to some 32 MiB, as worlds are small and soon gone:
// half as many steps again per second. GOGC in the environment wins.
const gcPercent = 800

// Run runs seeds, one run, or merges reports.
func (v *simVerb) Run(ctx context.Context, o output) error {
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	}
	opts, err := v.world()
	switch {
	case err != nil:
		return err
	case v.Merge:
		return v.merge(o)
	case len(v.Files) > 0:
		return fmt.Errorf("%s: files are for -merge; a scenario is replayed with -replay FILE", v.Files[0])
	case v.Replay != "":
		return v.replay(opts, o)
	case v.Cells:
		return v.cells(ctx, opts, o)
	case v.Scenarios != "":
		return v.scenarios(ctx, o)
	case v.Verbose || v.Step:
		return errors.New("-v and -step show one run: say which with -replay SEED or -replay FILE")
	}
	return v.campaign(ctx, opts, o)
}

// world makes the options that flags say.
func (v *simVerb) world() (w world.Options, err error) {
	w = world.Options{Steps: v.Steps, Guests: v.Guests, RingPages: v.Rings, Legal: v.Legal, Hostile: v.Hostile}
	if v.Version != "" {
		if w.Version, err = vmbus.ParseVersion(v.Version); err != nil {
			return w, fmt.Errorf("-version %s: there are %v", v.Version, vmbus.Versions())
		}
	}
	if v.Steps < 1 || v.Guests < 1 || v.Jobs < 0 || v.Exhaust < 0 {
		return w, errors.New("-steps and -guests take 1 and more, -j takes 0 (one per core) and more, -exhaust too")
	}
	_, err = world.New(w)
	return w, err
}

func (v *simVerb) campaign(ctx context.Context, w world.Options, o output) error {
	first, last, err := campaign.ParseSeeds(v.Seeds)
	if err != nil {
		return err
	}
	shard, err := v.shard()
	if err != nil {
		return err
	}
	progress := v.progress(o)
	opts := campaign.Options{
		First: first, Last: last, Shard: shard, World: w, Jobs: v.jobs(), Folder: v.Out, ShrinkTries: shrinkTries, Progress: progress,
	}
	switch {
	case v.Inject:
		return v.inject(ctx, opts, o)
	case v.Exhaust > 0:
		return v.exhaust(ctx, opts, o)
	}
	report, err := campaign.Run(ctx, opts)
	if progress != nil {
		fmt.Fprint(o.err, "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	return v.print(report, o)
}

// exhaust tries every order of a few choices.
func (v *simVerb) exhaust(ctx context.Context, opts campaign.Options, o output) error {
	if v.JSON || opts.Shard.Count > 1 {
		return errors.New("-exhaust goes with -seeds, -steps, -guests, -version, -ring-pages, -legal, -hostile and -j")
	}
	x, err := campaign.Exhaust(ctx, opts, v.Exhaust)
	if !x.Write(o.out) {
		return errFindings
	}
	return err
}

// inject repeats the seeds with a fault at every step.
func (v *simVerb) inject(ctx context.Context, opts campaign.Options, o output) error {
	if v.Hostile || v.JSON || opts.Shard.Count > 1 {
		return errors.New("-inject goes with -seeds, -steps, -guests, -version, -ring-pages and -j")
	}
	table, err := campaign.Inject(ctx, opts)
	if opts.Progress != nil {
		fmt.Fprint(o.err, "\r\x1b[K")
	}
	if !campaign.WriteInjections(o.out, table) {
		return errFindings
	}
	return err
}

// scenarios repeats scenario files with a fault at every step.
func (v *simVerb) scenarios(ctx context.Context, o output) error {
	if !v.Inject || v.JSON {
		return errors.New("-scenarios goes with -inject: hvlab sim -inject -scenarios testdata/scenario")
	}
	opts := campaign.Options{Folder: v.Out, ShrinkTries: shrinkTries, Jobs: v.jobs()}
	if v.Pairs {
		pairs, err := campaign.InjectPairs(ctx, opts, v.Scenarios)
		if pairs != nil && !pairs.Write(o.out) {
			return errFindings
		}
		return err
	}
	table, err := campaign.InjectScenarios(ctx, opts, v.Scenarios, 1)
	if !campaign.WriteScenarios(o.out, table) {
		return errFindings
	}
	return err
}

// cells prints who visits which cell of the transition tables.
func (v *simVerb) cells(ctx context.Context, w world.Options, o output) error {
	first, last, err := campaign.ParseSeeds(v.Seeds)
	switch {
	case err != nil:
		return err
	case v.Scenarios == "" || v.Inject || v.Legal || v.Hostile || v.JSON:
		return errors.New("-cells runs seeds in every way; say only: hvlab sim -cells -seeds 1-2000 -scenarios testdata/scenario")
	}
	opts := campaign.Options{
		First: first, Last: last, Shard: campaign.Shard{Count: 1}, World: w, Jobs: v.jobs(), Folder: v.Out, ShrinkTries: shrinkTries,
	}
	c, err := campaign.Cover(ctx, opts, v.Scenarios)
	if c != nil && !c.Write(o.out) { // an interrupted one has less, and no judgement of the rest
		return errFindings
	}
	return err
}

// jobs is how many runs there are at once.
func (v *simVerb) jobs() int {
	if v.Jobs == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return v.Jobs
}

func (v *simVerb) shard() (campaign.Shard, error) {
	if v.ShardCount == 0 {
		return campaign.ParseShard(v.Shard)
	}
	index := os.Getenv("JOB_COMPLETION_INDEX")
	if v.Shard != "" || index == "" {
		return campaign.Shard{}, errors.New("-shard-count needs JOB_COMPLETION_INDEX in the environment, and no -shard")
	}
	return campaign.ParseShard(index + "/" + strconv.Itoa(v.ShardCount))
}

// progress prints one line that overwrites itself, on a terminal.
func (v *simVerb) progress(o output) func(campaign.Report) {
	if !term.IsTerminal(int(o.err.Fd())) {
		return nil
	}
	return func(r campaign.Report) {
		left := "?"
		if r.Runs > 0 {
			left = time.Duration(float64(r.Planned-r.Runs) / float64(r.Runs) * r.Seconds * 1e9).Round(time.Second).String()
		}
		fmt.Fprintf(o.err, "\r\x1b[K%d of %d runs, %.0f steps/s, %d findings, %s left", r.Runs, r.Planned, float64(r.Steps)/r.Seconds, len(r.Findings), left)
	}
}

// print prints a report and says whether all is well.
func (v *simVerb) print(r campaign.Report, o output) error {
	if v.JSON {
		if err := r.WriteJSON(o.out); err != nil {
			return err
		}
	} else {
		r.WriteText(o.out)
	}
	switch {
	case len(r.Findings) > 0:
		return errFindings
	case len(r.Missing()) > 0:
		return fmt.Errorf("the workload is at fault: no run put %s at stake", strings.Join(r.Missing(), ", "))
	case r.Interrupted:
		return context.Canceled
	}
	return nil
}

func (v *simVerb) merge(o output) error {
	if len(v.Files) == 0 {
		return errors.New("-merge needs the reports to merge: hvlab sim -merge 0.json 1.json")
	}
	var all []campaign.Report
	for _, path := range v.Files {
		r, err := campaign.ReadFile(path)
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	return v.print(campaign.Merge(all), o)
}

// replay runs one seed or one scenario.
func (v *simVerb) replay(w world.Options, o output) error {
	if seed, err := strconv.ParseUint(v.Replay, 10, 64); err == nil {
		w.Seed = seed
		return v.show(w, o)
	}
	text, err := os.ReadFile(v.Replay)
	if err != nil {
		return fmt.Errorf("-replay %s: neither a seed nor a file: %w", v.Replay, err)
	}
	w, err = world.ParseScenario(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", v.Replay, err)
	}
	return v.show(w, o)
}

// show runs w and prints its end, with -v everything.
func (v *simVerb) show(w world.Options, o output) error {
	switch {
	case v.Step:
		w.Trace = &stepper{out: o.out, in: bufio.NewReader(os.Stdin)}
	case v.Verbose:
		buffered := bufio.NewWriter(o.out)
		defer buffered.Flush()
		w.Trace = buffered
	}
	r, err := world.Run(w)
	if err != nil {
		return err
	}
	if b, ok := w.Trace.(*bufio.Writer); ok {
		_ = b.Flush() // the same error comes with the next line
	}
	if len(r.Findings) == 0 {
		fmt.Fprintf(o.out, "%d steps, nothing found, hash %016x\n", r.Steps, r.Hash)
		return nil
	}
	fmt.Fprintln(o.out, r.Findings[0])
	return errFindings
}

// A stepper prints a trace and waits for Enter before each step.
type stepper struct {
	out  io.Writer
	in   *bufio.Reader
	free bool // input has ended: go on without asking
}

// Write is part of io.Writer.
func (s *stepper) Write(b []byte) (int, error) {
	isStep := len(b) > 6 && strings.TrimLeft(string(b[:6]), " ") != ""
	if isStep && !s.free {
		if _, err := s.in.ReadString('\n'); err != nil {
			s.free = true
		}
	}
	return s.out.Write(b)
}
