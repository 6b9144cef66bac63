// Shell runs a command in a simulated guest by ssh, with keys on both sides and
// no network in between: the way into a virtual machine whose network is broken.
//
//	go run ./shell
package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
	"golang.org/x/crypto/ssh"
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
	guest, err := host.NewGuest(sim.GuestOptions{Name: "web-1"})
	if err != nil {
		return err
	}
	hostKey, err := newKey()
	if err != nil {
		return err
	}
	userKey, err := newKey()
	if err != nil {
		return err
	}
	l, err := guest.Listen(hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: hvsock.ServiceIDFromPort(22)})
	if err != nil {
		return err
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() { served <- serveOne(l, guest.Name(), hostKey, userKey.PublicKey()) }()

	if err := login(out, host, guest, hostKey.PublicKey(), userKey); err != nil {
		return err
	}
	return <-served
}

func newKey() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(private)
}

// login is the client: it knows the server's key, and has one of its own.
func login(out io.Writer, host *sim.Host, guest *sim.Guest, serverKey ssh.PublicKey, userKey ssh.Signer) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := host.Dial(ctx, hvsock.Addr{VMID: guest.ID(), ServiceID: hvsock.ServiceIDFromPort(22)})
	if err != nil {
		return err
	}
	conn, channels, requests, err := ssh.NewClientConn(c, guest.Name(), &ssh.ClientConfig{
		User:            "admin",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(userKey)},
		HostKeyCallback: ssh.FixedHostKey(serverKey),
	})
	if err != nil {
		return err
	}
	client := ssh.NewClient(conn, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	session.Stdin = bytes.NewReader(make([]byte, 1<<20)) // 64 rings full
	answer, err := session.Output("wc -c")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "$ wc -c\n%s", answer)

	if session, err = client.NewSession(); err != nil {
		return err
	}
	var failed *ssh.ExitError
	if err := session.Run("reboot"); !errors.As(err, &failed) {
		return fmt.Errorf("reboot gives %v", err)
	}
	fmt.Fprintf(out, "$ reboot\nexit status %d\n", failed.ExitStatus())
	return nil
}

// serveOne is the server in the guest: one connection, any number of commands.
func serveOne(l net.Listener, name string, hostKey ssh.Signer, allowed ssh.PublicKey) error {
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !bytes.Equal(key.Marshal(), allowed.Marshal()) {
				return nil, errors.New("unknown key")
			}
			return &ssh.Permissions{}, nil
		},
	}
	config.AddHostKey(hostKey)
	c, err := l.Accept()
	if err != nil {
		return err
	}
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for asked := range channels {
		if asked.ChannelType() != "session" {
			_ = asked.Reject(ssh.UnknownChannelType, "sessions only")
			continue
		}
		session, requests, err := asked.Accept()
		if err != nil {
			return err
		}
		for r := range requests {
			var command struct{ Line string }
			if r.Type != "exec" || ssh.Unmarshal(r.Payload, &command) != nil {
				_ = r.Reply(false, nil)
				continue
			}
			_ = r.Reply(true, nil)
			status := execute(session, name, command.Line)
			_, _ = session.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			_ = session.Close()
		}
	}
	return nil
}

// execute is all the commands that this guest has.
func execute(session ssh.Channel, name, line string) (status uint32) {
	if line != "wc -c" {
		return 127
	}
	n, err := io.Copy(io.Discard, session)
	if err != nil {
		return 1
	}
	fmt.Fprintf(session, "%d bytes, counted in %s\n", n, name)
	return 0
}
