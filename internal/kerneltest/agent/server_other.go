//go:build !linux

package main

import (
	"errors"
	"io"

	"github.com/hvlab/hvlab/internal/kerneltest"
)

// The agent runs inside Linux guests only; elsewhere it compiles and says so.

const defaultBacklog = 128

type family struct{}

var vsock family

type server struct{}

var errLinuxOnly = errors.New("the agent runs on Linux only")

func newServer(family) *server { return &server{} }
func (*server) close()         {}
func (*server) serve(uint32, int, kerneltest.Service, kerneltest.Job) error {
	return errLinuxOnly
}
func (*server) controlConnection(role) (io.ReadWriteCloser, error) { return nil, errLinuxOnly }
func (*server) obey(io.ReadWriteCloser) error                      { return errLinuxOnly }
