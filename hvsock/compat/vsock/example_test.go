package vsock_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock/compat/vsock"
	"github.com/hvlab/hvlab/sim"
)

// A program that knows nothing of simulated machines, and the test of it.
func ExampleUse() {
	program := func() (string, error) { // as it was written, but for the import path of vsock
		c, err := vsock.Dial(vsock.Host, 5000, nil)
		if err != nil {
			return "", err
		}
		defer c.Close()
		answer, err := io.ReadAll(c)
		return string(answer), err
	}

	host, err := sim.NewHost(sim.HostOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	guest, err := host.NewGuest(sim.GuestOptions{})
	if err != nil {
		log.Fatal(err)
	}
	l, err := vsock.OnHost(host, map[uint32]uuid.UUID{3: guest.ID()}).Listen(5000, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		from, _ := c.RemoteAddr().(*vsock.Addr)
		fmt.Fprintf(c, "hello, guest %d", from.ContextID)
		_ = c.Close()
	}()

	_, err = program() // nobody has said where it runs
	fmt.Println("no sockets here:", errors.Is(err, syscall.EAFNOSUPPORT))
	defer vsock.Use(vsock.OnGuest(guest))()
	fmt.Println(program())
	// Output:
	// no sockets here: true
	// hello, guest 3 <nil>
}
