package endpoint

import (
	"strings"
	"testing"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/golden"
	"github.com/hvlab/hvlab/offers"
)

// TestDiagrams holds states.md, the diagrams of every table of the control plane,
// to the tables. "go test ./endpoint -run Diagrams -rewrite" makes it anew.
func TestDiagrams(t *testing.T) {
	var b strings.Builder
	b.WriteString("# State machines of the control plane\n\n" +
		"Made from the transition tables by `go test ./endpoint -run Diagrams -rewrite`. An edge that is not drawn is an\n" +
		"error. The same tables as state × event matrices are under `testdata/table`. Sections are those of the\n" +
		"specification, `vmbus-control.md`.\n")
	for _, d := range []struct{ title, text, diagram string }{
		{"Connection, host (5.1)", "Connecting and Disconnecting remember what was asked for meanwhile: the newest wins.", HostTransitions.Mermaid()},
		{"Connection, guest (6.1)", "A refused version is no event: the guest asks for the next.", GuestTransitions.Mermaid()},
		{"Offer, host (5.2)", "Who may see a channel id, and when it may be used again.", offers.HostTransitions.Mermaid()},
		{"Offer, guest (6.3, 6.4)", "A second rescind changes nothing.", offers.GuestTransitions.Mermaid()},
		{"Channel, host (5.2)", "What happens between open and close, reserved channels (3.13) included.", channel.OpenTransitions.Mermaid()},
		{"Channel, guest (6.2)", "The ring GPADL and the open in one machine: a guest only ever does them in this order.", channel.GuestTransitions.Mermaid()},
		{"GPADL, host (5.4)", "Events that end in Revoked happen on a rescinded channel, where no device is asked.", channel.GPADLTransitions.Mermaid()},
		{"Pause, guest (3.17)", "Resume waits for the answer, so that an answer never meets the pause after.", PauseTransitions.Mermaid()},
	} {
		b.WriteString("\n## " + d.title + "\n\n" + d.text + "\n\n```mermaid\n" + d.diagram + "```\n")
	}
	golden.Check(t, "../endpoint/states.md", b.String())
}
