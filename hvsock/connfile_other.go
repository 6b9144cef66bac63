//go:build !unix

package hvsock

import (
	"errors"
	"net"
)

// socketPair fails: this system has none.
func socketPair() (a, b *net.UnixConn, err error) { return nil, nil, errors.ErrUnsupported }

// awaitClose is never called.
func (*connFile) awaitClose() bool { return false }
