package sim_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"syscall"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
)

// A guest dials a host service, sends a line, and reads the answer.
func Example() {
	host, err := sim.NewHost(sim.HostOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	guest, err := host.NewGuest(sim.GuestOptions{})
	if err != nil {
		log.Fatal(err)
	}
	service := hvsock.ServiceIDFromPort(5000)
	l, err := host.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: service})
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		c, _ := l.Accept()
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	c, err := guest.Dial(context.Background(), hvsock.Addr{VMID: hvsock.Parent, ServiceID: service})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(c, "hello over VMBus ", guest.Version())
	_ = c.CloseWrite()
	answer, err := io.ReadAll(c)
	fmt.Println(string(answer), err)
	// Output: hello over VMBus 6.0 <nil>
}

// A guest is moved to another host: its listener lives, its connections do not.
func ExampleGuest_Migrate() {
	here, _ := sim.NewHost(sim.HostOptions{})
	there, _ := sim.NewHost(sim.HostOptions{})
	defer here.Close()
	defer there.Close()
	guest, err := here.NewGuest(sim.GuestOptions{})
	if err != nil {
		log.Fatal(err)
	}
	service := hvsock.Addr{VMID: guest.ID(), ServiceID: hvsock.ServiceIDFromPort(6000)}
	l, err := guest.Listen(hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: service.ServiceID})
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	c, err := here.Dial(context.Background(), service)
	if err != nil {
		log.Fatal(err)
	}
	if err := guest.Migrate(there, sim.Devices{}); err != nil {
		log.Fatal(err)
	}
	_, err = c.Read(make([]byte, 1))
	fmt.Println("the old connection:", errors.Is(err, syscall.ECONNRESET))
	c, err = there.Dial(context.Background(), service)
	fmt.Println("a new one at the new host:", c != nil, err)
	// Output:
	// the old connection: true
	// a new one at the new host: true <nil>
}
