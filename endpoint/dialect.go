package endpoint

import (
	"encoding/binary"

	"github.com/hvlab/hvlab/vmbus"
)

// A Dialect selects what other hosts do where sources disagree. The zero value is
// what the specification recommends. Source: vmbus-control.md 12; the row is
// named with each field.
type Dialect struct {
	// NoVersionEcho leaves offset 12 of VersionResponse 0 below 5.0, as QEMU does
	// (row 2).
	NoVersionEcho bool
	// PadMessages rounds every message up to a multiple of 8 bytes, as QEMU does
	// (rows 3 and 4).
	PadMessages bool
	// MessageConnection is the id for a guest's later messages, from 5.0; 0 means
	// MessagePort. Servers for another VTL choose their own (row 6).
	MessageConnection uint32
	// SignalBase makes a channel's event connection SignalBase + channel id; QEMU
	// has 16. 0 means EventConnection (row 7).
	SignalBase uint32
	// MonitorIDZero writes an unused monitor_id as 0, as QEMU does (row 8).
	MonitorIDZero bool
	// SilentGPADL ignores an illegal GPADLHeader instead of refusing it, as QEMU
	// does; the guest then hangs (row 13).
	SilentGPADL bool
	// GlobalGPADLs makes GPADL ids unique over all channels, as QEMU does
	// (row 14).
	GlobalGPADLs bool
	// FailureStatus is the status of a refused open; 0 means vmbus.StatusFailure.
	// QEMU has 1 (row 16).
	FailureStatus uint32
	// IgnoreReleases drops RelIDReleased, as QEMU does, which never rescinds
	// (row 18).
	IgnoreReleases bool
	// AnswerEveryUnload answers Unload also while not connected, as QEMU does
	// (row 22).
	AnswerEveryUnload bool
	// RejectUnknown makes the hypervisor refuse to post a message of type 0 or of
	// 18 and above with INVALID_HYPERCALL_INPUT, as QEMU does, instead of taking it
	// and dropping it later (row 19). See Refuses.
	RejectUnknown bool
	// ResetOnContact ends the old connection at once when a guest that is connected
	// makes contact, as QEMU does, instead of waiting for the devices to close
	// (row 23).
	ResetOnContact bool
	// AnswerRescindedOpens answers the OpenChannel of a rescinded channel with a
	// failed OpenResult. The specification says to ignore it, since the rescind
	// wakes the guest (vmbus-control.md 6.4, 13.2, faults.md GC-01), and that is the
	// default. But a Linux 6.1 whose rescind is handled between its check and its
	// wait sleeps for ever, and with it its whole bus; a late OpenResult wakes it
	// and harms nobody.
	AnswerRescindedOpens bool
	// MessageVPBelow30 honours the contact's message VP also below 3.0, as QEMU
	// does (row 24).
	MessageVPBelow30 bool
	// NoReserved drops messages 18 to 20, as everybody but OpenVMM does (row 30).
	NoReserved bool
}

// lastOldType is the newest message type that QEMU knows.
const lastOldType = vmbus.TypeUnloadComplete

// Refuses reports whether a post of payload fails with INVALID_HYPERCALL_INPUT.
// It looks at nothing else, so a driver may ask it in the hypercall.
func (d Dialect) Refuses(payload []byte) bool {
	if !d.RejectUnknown || len(payload) < 4 {
		return false
	}
	t := vmbus.Type(binary.LittleEndian.Uint32(payload))
	return t == 0 || t > lastOldType
}

// openFailure is the status of an open the host itself refuses.
func (d Dialect) openFailure() uint32 {
	if d.FailureStatus != 0 {
		return d.FailureStatus
	}
	return vmbus.StatusFailure
}

// eventConnection is the connection id on which the guest signals a channel.
func (d Dialect) eventConnection(id vmbus.ChannelID) uint32 {
	if d.SignalBase != 0 {
		return d.SignalBase + uint32(id)
	}
	return EventConnection(id)
}

// monitorID is how an unused monitor id looks.
func (d Dialect) monitorID(id uint8) uint8 {
	if id == vmbus.NoMonitor && d.MonitorIDZero {
		return 0
	}
	return id
}

// Payload is the message as bytes, rounded up if the dialect says so.
func (o Outgoing) Payload() []byte { return o.AppendPayload(nil) }

// AppendPayload appends Payload to dst.
func (o Outgoing) AppendPayload(dst []byte) []byte {
	at := len(dst)
	dst = vmbus.Append(dst, o.Message)
	for o.padded && (len(dst)-at)%8 != 0 {
		dst = append(dst, 0)
	}
	return dst
}
