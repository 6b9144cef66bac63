// Package services is the host's half of Hyper-V's integration services in their
// simplest correct form: heartbeat, shutdown and time synchronisation, as a
// Linux guest's hv_utils module knows them.
//
// Each is one device with a well-known interface. All three speak the same small
// protocol of request and response inside in-band ring packets: the host
// negotiates versions first, then sends requests of the service's own kind
// (icmsg.go). A [Service] is that protocol, the constructors are the services.
//
// Source: Linux include/linux/hyperv.h (struct icmsg_hdr and what follows it)
// and drivers/hv/hv_util.c.
package services
