package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/hvlab/hvlab/cmd/hvlab/internal/campaign"
	"github.com/stretchr/testify/require"
)

// TestKubernetesJob: the arguments of the Job manifest are ones that hvlab takes,
// with the index that Kubernetes sets; all its pods together run every seed once.
func TestKubernetesJob(t *testing.T) {
	text, err := os.ReadFile("../../.ci/sim-job.yaml")
	require.NoError(t, err)
	completions := regexp.MustCompile(`(?m)^  completions: (\d+)$`).FindSubmatch(text)
	require.NotNil(t, completions)
	require.Regexp(t, `(?m)^  completionMode: Indexed$`, string(text), "else there is no index")
	line := regexp.MustCompile(`(?m)^ +args: (\[.*\])$`).FindSubmatch(text)
	require.NotNil(t, line)
	var args []string
	require.NoError(t, json.Unmarshal(line[1], &args))
	at := slices.Index(args, "-shard-count")
	require.Positive(t, at)
	require.Equal(t, string(completions[1]), args[at+1], "one shard for each pod")

	const pods = 3
	folder := t.TempDir()
	args[at+1] = strconv.Itoa(pods)
	args[slices.Index(args, "-seeds")+1] = "1-10"
	args[slices.Index(args, "-out")+1] = folder
	var reports []campaign.Report
	for pod := range pods {
		t.Setenv("JOB_COMPLETION_INDEX", strconv.Itoa(pod))
		path := filepath.Join(folder, "report.json")
		out, err := os.Create(path)
		require.NoError(t, err)
		real := os.Stdout
		os.Stdout = out
		status := run(append(args, "-steps", "50"))
		os.Stdout = real
		require.NoError(t, out.Close())
		require.Zero(t, status)
		r, err := campaign.ReadFile(path)
		require.NoError(t, err)
		reports = append(reports, r)
	}
	require.EqualValues(t, 4, reports[0].Runs, "seeds 1, 4, 7 and 10")
	require.EqualValues(t, 10, campaign.Merge(reports).Runs)
}
