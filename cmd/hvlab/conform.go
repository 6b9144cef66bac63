package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hvlab/hvlab/cmd/hvlab/internal/conform"
	"golang.org/x/sync/errgroup"
)

// conformVerb is `hvlab conform`.
type conformVerb struct {
	Files []string `arg:"" optional:"" help:"Output of hvlab conform -json on another machine, for more columns."`

	JSON     bool   `name:"json" help:"Print rows, systems, answers and differences as one JSON document."`
	Systems  string `default:"simulator,native" help:"What to ask now: simulator, native (the operating system's sockets), or both (${default})."`
	Only     string `placeholder:"REGEXP" help:"Ask only what matches, as in -only '^Dial'."`
	Observed string `placeholder:"FOLDER" help:"Recorded observations and their explanations (testdata/observed, if it is there)."`
	Record   bool   `help:"Write what was asked, and what FILES say, to the folder of observations."`
}

// Help is the long text of `hvlab conform -h`.
func (conformVerb) Help() string {
	return `Every system is asked the same: whether it keeps each promise of a Hyper-V
socket, and what it does where real systems differ. The simulator is the
reference in the first column; what others do differently stands below the row,
with the explanation if one is recorded. The exit status is 1 if a difference has
none.

Examples:

    hvlab conform
    hvlab conform -json | jq '.differences[] | select(.why == null)'
    hvlab conform -json -systems native > there.json     # on another machine
    hvlab conform there.json
`
}

// observedFolder is where the repository keeps its observations.
const observedFolder = "testdata/observed"

// Run asks, compares and prints.
func (v *conformVerb) Run(ctx context.Context, o output) error {
	records, err := v.load(o)
	if err != nil {
		return err
	}
	pattern, err := regexp.Compile(v.Only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	rows := conform.Only(conform.Rows(), pattern)
	if len(rows) == 0 {
		return fmt.Errorf("no row matches -only %q", v.Only)
	}
	systems, err := v.observe(ctx, o, rows)
	if err != nil {
		return err
	}
	for _, file := range v.Files {
		more, err := conform.ReadSystems(file)
		if err != nil {
			return err
		}
		systems = append(systems, more...)
	}
	if len(systems) == 0 {
		return errors.New("nothing to compare: no system was asked and no file named")
	}
	if v.Record {
		return v.save(systems)
	}
	if systems[0].Name == conform.Reference {
		systems = addRecorded(systems, records)
	}
	table := conform.Table{Rows: rows, Systems: systems, Records: records}
	return v.print(o, table, records != nil)
}

// print writes the table and judges it. Without records nothing can be explained,
// so differences are news and not a failure.
func (v *conformVerb) print(o output, table conform.Table, judge bool) error {
	write := table.WriteText
	if v.JSON {
		write = table.WriteJSON
	}
	if err := write(o.out); err != nil {
		return err
	}
	fmt.Fprintln(o.err, "hvlab conform:", table.Summary())
	if table.Systems[0].Name != conform.Reference {
		return nil // nothing to compare with
	}
	if broken := table.Broken(); len(broken) > 0 {
		return fmt.Errorf("the simulator breaks a promise: %s", strings.Join(broken, "; "))
	}
	if unexplained := table.Unexplained(); judge && len(unexplained) > 0 {
		return fmt.Errorf("%d differences without an explanation, the first: %v", len(unexplained), unexplained[0])
	}
	return nil
}

// load reads the records; none if the folder was not named and is not there.
func (v *conformVerb) load(o output) ([]conform.System, error) {
	if v.Observed != "" {
		return conform.Load(v.Observed)
	}
	records, err := conform.Load(observedFolder)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(o.err, "hvlab conform: no folder %s here, so no difference is explained; name one with -observed\n", observedFolder)
		return nil, nil
	}
	v.Observed = observedFolder
	return records, err
}

// observe asks the systems that the flags name, all at once: they mostly wait.
func (v *conformVerb) observe(ctx context.Context, o output, rows []conform.Row) ([]conform.System, error) {
	var candidates []conform.Candidate
	for _, kind := range strings.Split(v.Systems, ",") {
		switch kind {
		case "simulator":
			simulated, stop, err := conform.Simulated()
			if err != nil {
				return nil, err
			}
			defer stop() //nolint:errcheck // it is over, and its systems have been asked
			candidates = append(candidates, simulated...)
		case "native":
			real, report := conform.Native()
			if len(real) == 0 {
				fmt.Fprintf(o.err, "hvlab conform: this machine's own sockets are left out:\n%s", report)
			}
			candidates = append(candidates, real...)
		case "":
		default:
			return nil, fmt.Errorf("-systems knows simulator and native, not %q", kind)
		}
	}
	systems := make([]conform.System, len(candidates))
	group, ctx := errgroup.WithContext(ctx)
	for i, c := range candidates {
		group.Go(func() (err error) {
			systems[i], err = c.Observe(ctx, rows)
			return err
		})
	}
	return systems, group.Wait()
}

// addRecorded adds the records of systems that were not asked now.
func addRecorded(systems, records []conform.System) []conform.System {
	asked := slices.Clone(systems)
	for _, r := range records {
		if !slices.ContainsFunc(asked, func(s conform.System) bool { return s.Name == r.Name }) {
			systems = append(systems, r)
		}
	}
	return systems
}

// save records every system but the reference.
func (v *conformVerb) save(systems []conform.System) error {
	if v.Only != "" {
		return errors.New("-record wants every row; leave -only out")
	}
	if systems[0].Name != conform.Reference {
		return errors.New("-record needs the reference; ask the simulator, too")
	}
	if v.Observed == "" {
		return errors.New("-record needs a folder; name one with -observed")
	}
	for _, s := range systems[1:] {
		if err := conform.Save(v.Observed, systems[0], s, time.Now()); err != nil {
			return err
		}
	}
	return nil
}
