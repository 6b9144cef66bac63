// Package kerneltest drives a real Linux guest from the host's side of a VMBus.
//
// Inside the guest runs the agent (package agent, started by /init). It obeys
// requests that arrive over one control connection, which is itself a Hyper-V
// socket: open a connection, write, read, half-close, run a service, transfer
// with checksums, show the kernel's log. This package has the host's half, a
// Client, and what both halves share: the requests, the data pattern and the
// services that a connection can offer.
//
//	conn := ...                       // the agent dialled the host, or the host the agent
//	c := kerneltest.NewClient(conn)
//	err := c.Serve(ctx, 5000, kerneltest.Echo)
//	r, err := c.Do(ctx, kerneltest.Request{Op: kerneltest.OpRun, Port: 6000, Mode: kerneltest.Echo, Bytes: 1 << 20})
//
// The script run in this folder boots the kernel, if need be inside an emulated
// machine, and runs the tests named TestKernel and TestMachine of any package.
package kerneltest
