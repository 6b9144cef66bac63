//go:build !race

package synic_test

// raceRounds is how often TestPostMeetsFree stages its race. Tried out: a host
// that does not look again fails every run, a guest that looks for the flag too
// early about every second one.
const raceRounds = 30_000
