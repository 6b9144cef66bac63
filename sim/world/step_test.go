package world

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStepText: what a run writes is read back as the same steps.
func TestStepText(t *testing.T) {
	for _, o := range []Options{{Seed: 1, Guests: 2}, {Seed: 2, Guests: 2, Legal: true}, {Seed: 3, Guests: 2, Hostile: true}} {
		for _, s := range requireNothing(t, o).Script {
			back, err := ParseStep(s.String())
			require.NoError(t, err)
			require.Equal(t, s, back, s.String())
		}
	}
}

// TestStepMistakes: a text that is no step says why.
func TestStepMistakes(t *testing.T) {
	for text, reason := range map[string]string{
		"":                            "empty",
		"timer":                       "timer NUMBER",
		"signal host>guest1 7":        "signal host>guestN VP:FLAG",
		"lost guest1>host 7":          "signal host>guestN",
		"guest0 post":                 "no guest",
		"guest1 jump":                 "action, post, call or receive",
		"app c1.middle read 1":        "neither host",
		"app host read":               "a number is missing",
		"app host frobnicate":         "no such call",
		"app c1.client close now":     "too many words",
		"fault frobnicate guest1":     "no such fault",
		"hostile post guest1 1 2":     "too many words",
		"app host dial guest0 1":      "dial guestN",
		"fault rescind guest1 eleven": "a number at the end",
	} {
		_, err := ParseStep(text)
		require.ErrorContains(t, err, reason, text)
	}
}

// TestScenarioMistakes: so does a text that is no scenario, with its line.
func TestScenarioMistakes(t *testing.T) {
	for text, reason := range map[string]string{
		"":                      "begins with: sim",
		"world guest=5.3":       `line 1 of the scenario: it begins with "world"`,
		"# x\nsim seed=x":       "line 2 of the scenario: seed=x",
		"sim color=red":         "no such option",
		"sim guests=99":         "guests: 99 is not from 1 to 16",
		"sim legal hostile":     "never mix",
		"sim seed=1\n\nfoo bar": "line 3",
	} {
		_, err := ParseScenario(text)
		require.ErrorContains(t, err, reason, text)
	}
}
