// Service is an integration service of one's own, step by step as Microsoft's
// "Make your own integration services" has it: register a GUID on the host,
// listen there, connect from the guest, echo. Between Windows ends any GUID will
// do; for a Linux guest take the one of a port (hvsock.ServiceIDFromPort).
//
//	go run ./service
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/native"
	"github.com/hvlab/hvlab/hvsock/registry"
	"github.com/hvlab/hvlab/sim"
)

// demo is the service's id: made once with uuidgen, and known to both ends.
var demo = uuid.MustParse("6bbb51c9-7a0c-4bd0-93b5-6a3d5c6bd0f1")

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer) error {
	// 1. Register. On a real host an administrator does that once, with the line
	// that is printed here; the simulated one is as strict, and keeps its own key.
	services := registry.New(registry.Service{ID: demo, ElementName: "HV Socket Demo"})
	fmt.Fprintln(out, native.RegisterCommand(demo, "HV Socket Demo"))
	host, err := sim.NewHost(sim.HostOptions{Services: services, Strict: true})
	if err != nil {
		return err
	}
	defer host.Close()
	_, err = host.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: uuid.New()})
	fmt.Fprintln(out, "a service that is not registered is denied:", errors.Is(err, os.ErrPermission))

	// 2. Listen, for connections of any of this host's guests.
	l, err := host.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: demo})
	if err != nil {
		return err
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() { served <- echo(l) }()

	// 3. Connect, from a guest: whatever its host is called, it is the parent.
	guest, err := host.NewGuest(sim.GuestOptions{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := guest.Dial(ctx, hvsock.Addr{VMID: hvsock.Parent, ServiceID: demo})
	if err != nil {
		return err
	}
	defer c.Close()

	// 4. Send and receive, and say that nothing more will come.
	for _, line := range []string{"hello", "is anybody there?"} {
		fmt.Fprintln(c, line)
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	for answers := bufio.NewScanner(c); answers.Scan(); {
		fmt.Fprintln(out, "the host says:", answers.Text())
	}
	return <-served
}

// echo serves one guest.
func echo(l *hvsock.Listener) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(c, c)
	return err
}
