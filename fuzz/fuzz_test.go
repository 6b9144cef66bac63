package fuzz

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run is the body of every FuzzName: the seeds of the target, and its property.
func run(f *testing.F, name string) {
	target := byName(f, name)
	seeds, err := target.Seeds(os.DirFS("../testdata"))
	require.NoError(f, err)
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := target.Run(data); err != nil {
			t.Fatal(err)
		}
	})
}

func byName(t testing.TB, name string) Target {
	t.Helper()
	for _, target := range Targets() {
		if target.Name == name {
			return target
		}
	}
	t.Fatalf("there is no target %s", name)
	return Target{}
}

func FuzzHostMessages(f *testing.F) { run(f, "HostMessages") }

func FuzzGuestMessages(f *testing.F) { run(f, "GuestMessages") }

func FuzzWorld(f *testing.F) { run(f, "World") }

func FuzzRingReader(f *testing.F) { run(f, "RingReader") }

func FuzzRingWriter(f *testing.F) { run(f, "RingWriter") }

func FuzzPipeBytes(f *testing.F) { run(f, "PipeBytes") }

func FuzzPipeMessages(f *testing.F) { run(f, "PipeMessages") }

func FuzzPipeStream(f *testing.F) { run(f, "PipeStream") }

func FuzzHostSockets(f *testing.F) { run(f, "HostSockets") }

func FuzzGuestSockets(f *testing.F) { run(f, "GuestSockets") }

func FuzzProfiles(f *testing.F) { run(f, "Profiles") }

func FuzzDrivers(f *testing.F) { run(f, "Drivers") }

func FuzzGuestMessage(f *testing.F) { run(f, "GuestMessage") }

func FuzzHostMessage(f *testing.F) { run(f, "HostMessage") }

func FuzzGPADLs(f *testing.F) { run(f, "GPADLs") }

func FuzzRanges(f *testing.F) { run(f, "Ranges") }

func FuzzSlots(f *testing.F) { run(f, "Slots") }

func FuzzHypercalls(f *testing.F) { run(f, "Hypercalls") }

func FuzzSavedState(f *testing.F) { run(f, "SavedState") }

func FuzzAddresses(f *testing.F) { run(f, "Addresses") }

func FuzzSockaddrs(f *testing.F) { run(f, "Sockaddrs") }
