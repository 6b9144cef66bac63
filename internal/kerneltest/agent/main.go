// Command agent runs inside the guest of a kernel test and does what the host's
// test tells it to. It is started by /init with one or more roles:
//
//	control-dial:PORT     connect to PORT of the host and obey the requests that come
//	control-listen:PORT   listen on PORT and obey the first connection
//	echo:PORT  sum:PORT  source:PORT:BYTES  discard:PORT  hold:PORT
//	                      provide a service on PORT; alone, they run until the guest ends
//
// See package kerneltest for the requests and the services.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/hvlab/hvlab/internal/kerneltest"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

// A role is one argument.
type role struct {
	name  string
	port  uint32
	bytes int64
}

// parseRole reads NAME:PORT[:BYTES].
func parseRole(s string) (role, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return role{}, fmt.Errorf("role %q is not NAME:PORT", s)
	}
	port, err := strconv.ParseUint(parts[1], 0, 32)
	if err != nil {
		return role{}, fmt.Errorf("role %q: %w", s, err)
	}
	r := role{name: parts[0], port: uint32(port)}
	if len(parts) == 3 {
		if r.bytes, err = strconv.ParseInt(parts[2], 0, 64); err != nil {
			return role{}, fmt.Errorf("role %q: %w", s, err)
		}
	}
	return r, nil
}

// run carries out the roles. It returns when a control connection has ended, or
// never if there is none.
func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("no role given, such as control-dial:9000 or echo:5000")
	}
	s := newServer(vsock)
	defer s.close()
	var control *role
	for _, a := range arguments {
		r, err := parseRole(a)
		if err != nil {
			return err
		}
		if r.name == "control-dial" || r.name == "control-listen" {
			control = &r
			continue
		}
		job := kerneltest.Job{Bytes: r.bytes}
		if err := s.serve(r.port, defaultBacklog, kerneltest.Service(r.name), job); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	if control == nil {
		select {}
	}
	c, err := s.controlConnection(*control)
	if err != nil {
		return fmt.Errorf("control connection: %w", err)
	}
	return s.obey(c)
}
