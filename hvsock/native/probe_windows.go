package native

import "github.com/hvlab/hvlab/hvsock"

func probe() Report {
	f := hypervFacts{service: hvsock.Addr{VMID: hvsock.Loopback, ServiceID: hvsock.ServiceIDFromPort(ProbePort)}}
	f.loopback = current().tryLoopback(f.service)
	return f.report()
}
