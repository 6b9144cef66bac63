package sim_test

import (
	"context"
	"fmt"
	"io"
	"log"

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
