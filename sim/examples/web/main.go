// Web serves HTTP on a simulated host and fetches pages from a simulated guest,
// by HTTP/1.1 and by HTTP/2 without TLS (h2c). Nothing of package net/http is
// special here: the server takes any net.Listener, the client any DialContext.
//
//	go run ./web
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
)

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer) error {
	host, err := sim.NewHost(sim.HostOptions{})
	if err != nil {
		return err
	}
	defer host.Close()
	guest, err := host.NewGuest(sim.GuestOptions{})
	if err != nil {
		return err
	}
	stop, err := serve(host)
	if err != nil {
		return err
	}
	defer stop()
	for _, version := range []int{1, 2} {
		if err := fetch(out, guest, version); err != nil {
			return err
		}
	}
	return nil
}

// serve answers every guest of the host on port 8080. Both versions of HTTP come
// to the same listener; the server tells them apart by their first bytes.
func serve(host *sim.Host) (stop func(), err error) {
	l, err := host.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: hvsock.ServiceIDFromPort(8080)})
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second, // deadlines work as on any net.Conn
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s of %s, asked of %s", r.Proto, r.URL.Path, r.Host)
		}),
		Protocols: new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	return func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			log.Print(err)
		}
	}, nil
}

// fetch gets two pages over one connection.
func fetch(out io.Writer, guest *sim.Guest, version int) error {
	transport := &http.Transport{
		DialContext: guest.DialContext, // understands host names such as parent, and GUIDs
		Protocols:   new(http.Protocols),
	}
	defer transport.CloseIdleConnections()
	transport.Protocols.SetHTTP1(version == 1)
	transport.Protocols.SetUnencryptedHTTP2(version == 2)
	client := &http.Client{Transport: transport}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, page := range []string{"index.html", "news.html"} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://parent:8080/"+page, nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: %s\n", answer.Status, text)
	}
	return nil
}
