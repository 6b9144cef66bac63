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
	_, attachment := g.attached()
	peer := attachment.peer
	if err := peer.AddContainer(opts.ID); err != nil {
		return nil, fmt.Errorf("sim: container %v: %w", opts.ID, err)
	}
	c, err := g.sockets.NewContainer(opts.ID)
	if err != nil {
		peer.RemoveContainer(opts.ID)
		return nil, fmt.Errorf("sim: container %v: %w", opts.ID, err)
	}
	return &Container{c, func() { peer.RemoveContainer(opts.ID) }}, nil
}
