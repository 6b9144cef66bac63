//go:build !hvlab_putback

package putback

// Built says whether the switches are in this build. Only small functions that are
// inlined ask for it before On: a constant costs the inliner nothing.
const Built = false

// On reports whether f was put back: never, in this build.
func On(Fault) bool { return false }
