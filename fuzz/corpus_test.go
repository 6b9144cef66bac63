package fuzz

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	minimiseTarget = flag.String("target", "", "minimise the corpus of this target (with -cover)")
	learnedFolder  = flag.String("learned", "", "a folder with more inputs, as the fuzzer writes them")
	keepInputs     = flag.Bool("keep", false, "write testdata/fuzz")
)

// A corpusFile is one input in Go's format.
type corpusFile struct {
	path string // "" if it is not in testdata
	data []byte
}

// found is the name that the fuzzer gives to an input. Others were given by
// people, for a reason.
var found = regexp.MustCompile(`^[0-9a-f]{16}$`)

// TestMinimise finds the inputs that reach code which neither the seeds nor
// shorter inputs reach; internal/fuzzlong calls it. With -keep they become the
// corpus, beside those with a name of their own.
func TestMinimise(t *testing.T) {
	if *minimiseTarget == "" {
		t.Skip("a part of internal/fuzzlong: it needs -target")
	}
	require.NotZero(t, testing.CoverMode(), "it needs -cover")
	target := byName(t, *minimiseTarget)
	seeds, err := target.Seeds(os.DirFS("../testdata"))
	require.NoError(t, err)
	for _, s := range seeds {
		require.NoError(t, target.Run(s))
	}
	own := filepath.Join("testdata", "fuzz", "Fuzz"+target.Name)
	inputs := append(readCorpus(t, own, true), readCorpus(t, *learnedFolder, false)...)
	slices.SortStableFunc(inputs, func(a, b corpusFile) int { return len(a.data) - len(b.data) })
	covered := testing.Coverage()
	t.Logf("%d seeds cover %.2f%% with what the tests need", len(seeds), 100*covered)
	kept, bytes := 0, 0
	for _, in := range inputs {
		require.NoError(t, target.Run(in.data), "%q", in.data)
		now := testing.Coverage()
		needed := now > covered || in.path != "" && !found.MatchString(filepath.Base(in.path))
		covered = now
		if needed {
			kept++
			bytes += len(in.data)
		}
		if *keepInputs {
			keep(t, own, in, needed)
		}
	}
	t.Logf("%s covers %.2f%%: %d seeds, and %d of %d inputs with %d bytes are needed", target.Name, 100*covered, len(seeds), kept, len(inputs), bytes)
}

// keep writes or removes one input of the corpus.
func keep(t *testing.T, folder string, in corpusFile, needed bool) {
	switch {
	case !needed && in.path != "":
		require.NoError(t, os.Remove(in.path))
	case needed && in.path == "":
		require.NoError(t, os.MkdirAll(folder, 0o755))
		require.NoError(t, writeInput(filepath.Join(folder, contentName(in.data)), in.data))
	}
}

// readCorpus reads a folder of inputs; one that does not exist is empty.
func readCorpus(t *testing.T, folder string, own bool) (list []corpusFile) {
	names, err := filepath.Glob(filepath.Join(folder, "*"))
	require.NoError(t, err)
	for _, name := range names {
		data, err := readInput(name)
		require.NoError(t, err)
		in := corpusFile{data: data}
		if own {
			in.path = name
		}
		list = append(list, in)
	}
	return list
}

// contentName is the name that the fuzzer would give to an input.
func contentName(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}
