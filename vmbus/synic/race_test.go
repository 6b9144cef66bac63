//go:build race

package synic_test

// raceRounds is small under the race detector, whose slow atomics miss the
// moments this test is about anyway.
const raceRounds = 1_000
