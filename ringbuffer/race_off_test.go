//go:build !race

package ringbuffer

const raceDetector = false
