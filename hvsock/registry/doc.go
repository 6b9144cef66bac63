// Package registry is the list of services that a Windows host keeps for
// Hyper-V sockets: the registry key GuestCommunicationServices.
//
// On a Windows host a program may only listen on a service, or connect to one in
// a guest, that an administrator has registered under that key. A [Registry] is
// the key: services are registered, listed, disabled and enabled in it, and a
// host that is given one (hvsock.HostOptions.Services) asks it before each bind
// and connect. [Load] reads the .reg file that regedit or "reg export" makes of
// a real host's key, and [Registry.Save] writes one.
//
//	key, err := registry.Load(file)
//	host, err := sim.NewHost(sim.HostOptions{Services: key, Strict: true})
//
// Virtual machines made through HCS (WSL, containers) carry a table of their own
// instead, whose services say more: who may bind and connect, as SDDL, and
// whether a wildcard bind counts. A [Service] has those fields too; in a file
// they are values with the names of HCS's, which Windows itself ignores there.
//
// Source: hvsock.md 3; Microsoft's "Make your own integration services" and the
// HvSocketServiceConfig of the HCS schema.
package registry
