//go:build !hvlab_putback

package putback

// On reports whether f was put back: never, in this build.
func On(Fault) bool { return false }
