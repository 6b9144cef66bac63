// Rpc serves gRPC in a simulated guest and calls it from the host, as a program
// that manages containers or virtual machines does with its agent. The service is
// gRPC's own health service, so that there is no code to generate.
//
//	go run ./rpc
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
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

	// The guest's side: a server on any net.Listener.
	l, err := guest.Listen(hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: hvsock.ServiceIDFromPort(9000)})
	if err != nil {
		return err
	}
	server, status := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, status)
	go func() { _ = server.Serve(l) }() // returns when the server stops
	defer server.Stop()

	// The host's side: a client with its own dialer. passthrough leaves the
	// address to it: the guest's id and a port.
	client, err := grpc.NewClient("passthrough:///"+guest.ID().String()+":9000",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return host.DialContext(ctx, "hvsock", address)
		}))
	if err != nil {
		return err
	}
	defer client.Close()
	return watch(out, client, status)
}

// watch asks for the health of a service while it changes.
func watch(out io.Writer, client *grpc.ClientConn, status *health.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	agent := healthpb.NewHealthClient(client)

	var from peer.Peer
	answer, err := agent.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&from))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "the guest is %v, says a peer on network %s\n", answer.Status, from.Addr.Network())

	stream, err := agent.Watch(ctx, &healthpb.HealthCheckRequest{Service: "agent"})
	if err != nil {
		return err
	}
	for _, next := range []healthpb.HealthCheckResponse_ServingStatus{
		healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		news, err := stream.Recv() // the first says that there is no such service yet
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "the agent is", news.Status)
		status.SetServingStatus("agent", next)
	}
	news, err := stream.Recv()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "the agent is", news.Status)
	return nil
}
