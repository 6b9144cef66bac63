package vmbus_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

var rewrite = flag.Bool("rewrite", false, "rewrite testdata/table/messages.txt")

const tableHeader = `# Which control messages exist, and how long their forms are, by what was negotiated.
# Made by asking Parse; regenerate with: go test ./vmbus -run MessageTable -rewrite
#
# Cells are bytes with header and without GPADL words; "-" = the type does not exist.
# "16/20/40" = the length of the message decides. For InitiateContact the version
# and features inside the message decide. "0.0" = before negotiation, "+n" =
# feature bit n alone at 6.0, "+all" = all of them. The bits:
# 0 GuestSignalParams, 1 RedirectInterrupt, 2 ConnectionModify, 3 ClientIDs,
# 4 ConfidentialChannels, 5 PauseResume, 6 ServerMonitorPages, 7 GPAPinning.

`

// A column of the table.
type column struct {
	name string
	n    vmbus.Negotiated
}

func columns() []column {
	cs := []column{{"0.0", vmbus.Negotiated{}}}
	for _, v := range vmbus.Versions() {
		cs = append(cs, column{v.String(), vmbus.Negotiated{Version: v}})
	}
	for bit := range 8 {
		cs = append(cs, column{fmt.Sprintf("+%d", bit), vmbus.Negotiated{Version: vmbus.Copper, Features: 1 << bit}})
	}
	return append(cs, column{"+all", all})
}

func TestMessageTable(t *testing.T) {
	var b strings.Builder
	b.WriteString(tableHeader)
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	cs := columns()
	fmt.Fprint(w, "#\tmessage\tdirection")
	for _, c := range cs {
		fmt.Fprintf(w, "\t%s", c.name)
	}
	fmt.Fprintln(w)
	for ty := vmbus.TypeOfferChannel; ty <= vmbus.TypeResume; ty++ {
		fmt.Fprintf(w, "%d\t%v\t%v", uint32(ty), ty, ty.Direction())
		for _, c := range cs {
			fmt.Fprintf(w, "\t%s", cell(t, ty, c.n))
		}
		fmt.Fprintln(w)
	}
	require.NoError(t, w.Flush())

	path := filepath.Join("..", "testdata", "table", "messages.txt")
	if *rewrite {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

// TestFeaturesDecideOnlyTheirOwnMessages walks all 256 feature sets of all
// versions: the table's columns are samples of them.
// Source: vmbus-control.md 2.2, 3.0.
func TestFeaturesDecideOnlyTheirOwnMessages(t *testing.T) {
	for _, v := range append(vmbus.Versions(), 0) {
		for f := vmbus.Features(0); f <= vmbus.AllFeatures; f++ {
			n := vmbus.Negotiated{Version: v, Features: f}
			granted := f
			if v < vmbus.Copper {
				granted = 0 // below Copper both sides use 0
			}
			for ty := vmbus.TypeOfferChannel; ty <= vmbus.TypeResume; ty++ {
				want := vmbus.Available(ty, vmbus.Negotiated{Version: v})
				switch ty {
				case vmbus.TypeModifyConnection, vmbus.TypeModifyConnectionResponse:
					want = granted&vmbus.ConnectionModify != 0
				case vmbus.TypePause, vmbus.TypePauseResponse, vmbus.TypeResume:
					want = granted&vmbus.PauseResume != 0
				}
				m, _, err := vmbus.Parse(probe(ty, vmbus.MaxBodyBytes), n)
				require.Equal(t, want, err == nil, "%v at %v", ty, n)
				require.Equal(t, want, vmbus.Available(ty, n), "%v at %v", ty, n)
				if _, long := m.(*vmbus.OpenChannel2); ty == vmbus.TypeOpenChannel {
					require.Equal(t, granted&(vmbus.GuestSignalParams|vmbus.RedirectInterrupt) != 0, long, "%v", n)
				}
			}
		}
	}
}

// cell asks Parse for every form of ty at n, and that each is used from its own
// length on, as the specification's minimum lengths demand.
func cell(t *testing.T, ty vmbus.Type, n vmbus.Negotiated) string {
	t.Helper()
	var sizes []int
	for bodyBytes := range vmbus.MaxBodyBytes + 1 {
		for _, b := range [][]byte{probe(ty, bodyBytes), probeClientID(ty, bodyBytes)} {
			m, tail, err := vmbus.Parse(b, n)
			if err != nil {
				continue
			}
			require.Equal(t, len(b), vmbus.Size(m)+len(tail))
			if !slices.Contains(sizes, vmbus.Size(m)) {
				require.Empty(t, tail, "%v is first accepted at its own length", ty)
				sizes = append(sizes, vmbus.Size(m))
			}
		}
	}
	if len(sizes) == 0 {
		return "-"
	}
	slices.Sort(sizes)
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(sizes), " ", "/"), "[]")
}

// probe is a zero message of type ty.
func probe(ty vmbus.Type, bodyBytes int) []byte {
	b := make([]byte, vmbus.HeaderBytes+bodyBytes)
	binary.LittleEndian.PutUint32(b, uint32(ty))
	return b
}

// probeClientID is probe, for InitiateContact of one that announces a client id.
func probeClientID(ty vmbus.Type, bodyBytes int) []byte {
	b := probe(ty, bodyBytes)
	if ty == vmbus.TypeInitiateContact && bodyBytes >= 16 {
		binary.LittleEndian.PutUint32(b[8:], uint32(vmbus.Copper))
		binary.LittleEndian.PutUint64(b[16:], vmbus.TargetInfo{Features: vmbus.ClientIDs}.Pack(vmbus.Copper))
	}
	return b
}
