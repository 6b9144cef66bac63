// Package sim is a Hyper-V host and any number of guests in one process.
//
// A guest owns its physical pages; the host reaches them only through page
// numbers the guest hands over. Between them is an emulated synthetic interrupt
// controller that carries 240-byte messages, one message slot and one page of
// event flags, and nothing else: every connection goes through the same VMBus
// messages, GPADLs, rings and signals as between a Windows host and a Linux
// guest.
//
//	host, _ := sim.NewHost(sim.HostOptions{})
//	guest, _ := host.NewGuest(sim.GuestOptions{})
//	l, _ := host.Listen(hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: hvsock.ServiceIDFromPort(5000)})
//	c, _ := guest.Dial(ctx, hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(5000)})
//
// There is no package-level state: two hosts never meet. Everything works
// inside a testing/synctest bubble.
package sim
