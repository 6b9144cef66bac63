package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
)

// servicePort is the neighbour's, and attackPort what the attacker may dial.
const (
	servicePort = 5001
	attackPort  = 5000
)

// blockBytes is what the neighbour writes at once.
const blockBytes = 64 << 10

// A neighbour is a guest that sends an endless stream to its host, which checks
// every byte of it.
type neighbour struct {
	host     *sim.Host
	guest    *sim.Guest
	conn     *hvsock.Conn
	sent     chan uint64 // bytes written, when the writer is done
	result   chan error  // what the reader found
	received counter
}

func newNeighbour(host *sim.Host) (*neighbour, error) {
	guest, err := host.NewGuest(sim.GuestOptions{RingPages: ringPages})
	if err != nil {
		return nil, err
	}
	l, err := host.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: hvsock.ServiceIDFromPort(servicePort)})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	n := &neighbour{host: host, guest: guest, sent: make(chan uint64, 1), result: make(chan error, 1)}
	if n.conn, err = guest.Dial(context.Background(), hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(servicePort)}); err != nil {
		return nil, err
	}
	server, err := l.Accept()
	if err != nil {
		return nil, err
	}
	go n.write()
	go n.read(server)
	return n, nil
}

// at is the byte at a place of the stream: it repeats after a prime number of
// bytes, so a block that is lost or doubled shows.
func at(i uint64) byte { return byte(i % 251) }

func (n *neighbour) write() {
	block := make([]byte, blockBytes+251)
	for i := range block {
		block[i] = at(uint64(i))
	}
	var sent uint64
	for {
		m, err := n.conn.Write(block[sent%251:][:blockBytes])
		sent += uint64(m)
		if err != nil {
			n.sent <- sent
			return
		}
	}
}

func (n *neighbour) read(c net.Conn) {
	defer c.Close()
	buf := make([]byte, blockBytes)
	var got uint64
	for {
		m, err := c.Read(buf)
		for i, b := range buf[:m] {
			if b != at(got+uint64(i)) {
				n.result <- fmt.Errorf("byte %d of the neighbour's stream is wrong", got+uint64(i))
				return
			}
		}
		got += uint64(m)
		n.received.Store(got)
		if err != nil {
			sent := <-n.sent
			if sent != got {
				n.result <- fmt.Errorf("the neighbour sent %d bytes, %d arrived: %w", sent, got, err)
				return
			}
			n.result <- nil
			return
		}
	}
}

// close ends the stream, and says whether all of it arrived.
func (n *neighbour) close() error {
	if err := n.conn.Close(); err != nil {
		return fmt.Errorf("the neighbour's connection: %w", err)
	}
	err := <-n.result
	return errors.Join(err, n.host.Close())
}
