package winio_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"github.com/hvlab/hvlab/hvsock/compat/winio"
	"github.com/hvlab/hvlab/sim"
)

// Both ends in one process: each asks its own machine, by the original's names.
func ExampleOn() {
	host, err := sim.NewHost(sim.HostOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	guest, err := host.NewGuest(sim.GuestOptions{})
	if err != nil {
		log.Fatal(err)
	}
	service := winio.VsockServiceID(2761)
	l, err := winio.On(host).ListenHvsock(&winio.HvsockAddr{VMID: winio.HvsockGUIDChildren(), ServiceID: service})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, "hello")
		_ = c.Close()
	}()
	c, err := winio.On(guest).Dial(context.Background(), &winio.HvsockAddr{VMID: winio.HvsockGUIDParent(), ServiceID: service})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	answer, err := io.ReadAll(c)
	fmt.Println(string(answer), err)
	fmt.Println(c.RemoteAddr())
	// Output:
	// hello <nil>
	// a42e7cda-d03f-480c-9cc2-a4de20abb878:00000ac9-facb-11e6-bd58-64006a7986d3
}
