package native

import "github.com/hvlab/hvlab/hvsock"

// probePort is the port of the service that Probe tries. It is fixed, since a
// service must be registered before it can be used: "hv" and 01 in hexadecimal.
const probePort = 0x687601

func probe() Report {
	f := hypervFacts{service: hvsock.Addr{VMID: hvsock.Loopback, ServiceID: hvsock.ServiceIDFromPort(probePort)}}
	f.loopback = current().tryLoopback(f.service)
	return f.report()
}
