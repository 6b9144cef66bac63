package sim

import (
	"fmt"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
)

// ContainerOptions configures a Container. The zero value works.
type ContainerOptions struct {
	// ID is the container's id, from the same space as VM ids; the zero UUID
	// means a random one.
	ID uuid.UUID
}

// A Container is a silo, in a guest or on the host: a place with sockets of its
// own. It dials and listens like a Host or Guest; which VM id means what is in
// hvsock.Container.
type Container struct {
	*hvsock.Container
	forget func() // tells the host, once the container is closed
}

// Close closes the container's listeners and connections and removes it. A
// second call returns net.ErrClosed.
func (c *Container) Close() error {
	if err := c.Container.Close(); err != nil {
		return err
	}
	c.forget()
	return nil
}

// NewContainer starts a container on the host itself. It reaches the host under
// hvsock.Parent or hvsock.SiloHost, and the host reaches it under its id.
func (h *Host) NewContainer(opts ContainerOptions) (*Container, error) {
	if opts.ID == uuid.Nil {
		opts.ID = uuid.New()
	}
	c, err := h.sockets.NewContainer(opts.ID)
	if err != nil {
		return nil, fmt.Errorf("sim: container %v: %w", opts.ID, err)
	}
	return &Container{c, func() {}}, nil
}

// NewContainer starts a container in the guest, which is then a utility VM. It
// reaches the guest under hvsock.SiloHost and the guest's host under
// hvsock.Parent (see GuestOptions.SiloParent); both reach it under its id. What
// crosses VMBus names the container, which takes version 5.2 or newer.
func (g *Guest) NewContainer(opts ContainerOptions) (*Container, error) {
	if opts.ID == uuid.Nil {
		opts.ID = uuid.New()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.attachment.peer.AddContainer(opts.ID); err != nil {
		return nil, fmt.Errorf("sim: container %v: %w", opts.ID, err)
	}
	c, err := g.sockets.NewContainer(opts.ID)
	if err != nil {
		g.attachment.peer.RemoveContainer(opts.ID)
		return nil, fmt.Errorf("sim: container %v: %w", opts.ID, err)
	}
	g.containers[opts.ID] = struct{}{}
	return &Container{c, func() { g.removeContainer(opts.ID) }}, nil
}

// removeContainer makes the host forget a container, wherever the guest is now.
func (g *Guest) removeContainer(id uuid.UUID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.containers, id)
	g.attachment.peer.RemoveContainer(id)
}

// moveTo makes a the place where the guest is, with its containers. An id that the
// host knows already is EADDRINUSE; then the guest is where it was.
func (g *Guest) moveTo(h *Host, a *Attachment) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.addContainers(a.peer); err != nil {
		return err
	}
	g.host, g.attachment = h, a
	return nil
}

// addContainers tells a host of the guest's containers; g.mu is held.
func (g *Guest) addContainers(peer *hvsock.HostGuest) error {
	for id := range g.containers {
		if err := peer.AddContainer(id); err != nil {
			return fmt.Errorf("container %v: %w", id, err)
		}
	}
	return nil
}
