package boot

import (
	"context"
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/sim/services"
)

const (
	// heartbeatInterval is the time between heartbeats. Hyper-V's is 2 s; each one
	// wakes the guest, which an emulated machine feels.
	heartbeatInterval = 5 * time.Second
	// heartbeatPatience is how long the guest may be silent before that is said.
	heartbeatPatience = 30 * time.Second
	// shutdownPatience is how long the guest may take to agree to a shutdown.
	shutdownPatience = 10 * time.Second
	// reference is the rate of the guest's reference counter.
	referenceUnit = 100 * time.Nanosecond
)

// care is what a host does for a guest that is up, over its integration services:
// it sets the clock, asks for a sign of life, and shuts down in order.
type care struct {
	notes     *notes
	heartbeat *services.Heartbeat
	shutdown  *services.Shutdown
	timesync  *services.TimeSync
}

// newCare offers the services on bus.
func newCare(bus *live.Host, n *notes) *care {
	c := &care{notes: n, heartbeat: services.NewHeartbeat(), shutdown: services.NewShutdown(), timesync: services.NewTimeSync()}
	for _, s := range []*services.Service{c.heartbeat.Service, c.shutdown.Service, c.timesync.Service} {
		s.Attach(bus)
	}
	return c
}

// run looks after one boot, which begins now, until ctx ends.
func (c *care) run(ctx context.Context) {
	began := time.Now() // the reference counter starts with the machine
	select {
	case <-ctx.Done():
		return
	case <-c.timesync.Ready():
	}
	now := time.Now()
	if err := c.timesync.Set(ctx, now, uint64(now.Sub(began)/referenceUnit)); err != nil && ctx.Err() == nil {
		c.notes.say("the guest's clock was not set: " + err.Error())
	}
	select {
	case <-ctx.Done():
		return
	case <-c.heartbeat.Ready():
	}
	c.beat(ctx)
}

// beat sends heartbeats until ctx ends, and says so once if the guest falls silent.
func (c *care) beat(ctx context.Context) {
	heard, told := time.Now(), false
	tick := time.NewTicker(heartbeatInterval)
	defer tick.Stop()
	for {
		answer, cancel := context.WithTimeout(ctx, heartbeatInterval)
		_, err := c.heartbeat.Beat(answer)
		cancel()
		switch {
		case err == nil:
			heard, told = time.Now(), false
		case time.Since(heard) > heartbeatPatience && !told && ctx.Err() == nil:
			told = true
			c.notes.say("the guest has not answered heartbeats for " + heartbeatPatience.String() + "; it may hang")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// powerOff asks the guest to shut down, and says what the user may expect.
func (c *care) powerOff(ctx context.Context) {
	answer, cancel := context.WithTimeout(ctx, shutdownPatience)
	defer cancel()
	err := c.shutdown.PowerOff(answer)
	switch {
	case ctx.Err() != nil: // it has ended already
	case err != nil:
		c.notes.say("the guest cannot shut down in order (" + err.Error() + "; its module hv_utils does that): interrupt again to stop it")
	default:
		c.notes.say("the guest is shutting down; interrupt again to stop it at once")
	}
}
