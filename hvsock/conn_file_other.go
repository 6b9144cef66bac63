//go:build !unix

package hvsock

import (
	"errors"
	"os"
)

// A connFile is what File leaves in a Conn; there is none here.
type connFile struct{}

func (*connFile) end() {}

// File fails with an error matching errors.ErrUnsupported: this system has no
// socket pairs.
func (c *Conn) File() (*os.File, error) { return nil, c.opError("file", errors.ErrUnsupported) }
