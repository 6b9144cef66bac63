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
//
// # Pause, save, move, crash
//
// Hyper-V sockets do not survive their machine: what happens to it ends its
// connections, and clients are expected to dial again (hvsock.md 11). "Ends" is:
// Read returns what had arrived, then ECONNRESET (io.EOF in a guest whose profile
// knows no reset, such as hvsock.Linux), and Write returns EPIPE. Connections within
// the guest are left alone.
//
//	                  host's ends    guest's ends      host dials      guest dials       Accept, on both sides
//	Guest.Pause       end (1)        stand still       ETIMEDOUT       ETIMEDOUT         waits
//	Guest.Resume      as before      end (1)           works           works             goes on
//	Guest.Save        end            end               works           works             goes on
//	Host.RestoreGuest none           none              works           works             goes on (2)
//	Guest.Migrate     end            end               works at the    works: the new    goes on; the old host
//	                                                   new host, else  host is its       has EHOSTUNREACH
//	                                                   EHOSTUNREACH    parent
//	Guest.Hibernate   end            end               ENETDOWN        ENODEV            waits, until Guest.Resume
//	Guest.Crash       end            end               EHOSTUNREACH    ENODEV            goes on; net.ErrClosed
//	                                                                                     in the guest
//	Guest.Close       end            end               EHOSTUNREACH    ENODEV            as Crash
//
// (1) Connections whose end at the host has the option hvsock.ConnectedSuspend stand
// still and go on: no byte is lost.
//
// (2) A restored guest has the listeners that it had (Guest.Listeners). The programs
// of a guest are goroutines and cannot be saved, so somebody has to accept from them.
package sim
