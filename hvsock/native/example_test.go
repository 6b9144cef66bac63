package native_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/native"
)

// A program that talks to itself through the operating system where it can, and
// says what is missing where it cannot.
func Example() {
	if report := native.Probe(); !report.Usable(native.OfferLoopback) {
		log.Print(report)
	} else if err := talk(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("done")
	// Output: done
}

func talk() error {
	l, err := native.Listen(hvsock.Addr{VMID: hvsock.Loopback}) // any free port
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := native.Dial(ctx, l.Addr().(hvsock.Addr))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	echo, err := io.ReadAll(c)
	if string(echo) != "hello" {
		return errors.Join(err, fmt.Errorf("sent hello and got back %q", echo))
	}
	return err
}
