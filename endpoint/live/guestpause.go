package live

// Pause asks the host to fall silent. done runs on the loop: without an error when
// the host is silent, which lasts until Resume; with one if that is not possible
// now, or not part of what was negotiated. If the connection ends first, it does
// not run.
func (g *Guest) Pause(done func(error)) {
	ok := g.loop.do(func() {
		if err := g.core.Pause(); err != nil {
			done(err)
			return
		}
		g.paused = func() { done(nil) }
	})
	if !ok {
		done(ErrStopped)
	}
}

func (g *Guest) hostPaused() {
	if done := g.paused; done != nil {
		g.paused = nil
		done()
	}
	if g.next != nil { // closed meanwhile: a silent host answers nothing
		g.resume()
	}
}

// Resume ends a pause; without one it does nothing.
func (g *Guest) Resume() {
	g.loop.do(g.resume)
}

func (g *Guest) resume() {
	if g.core.Resume() == nil {
		g.askAgain()
	}
}
