package decode

import (
	"fmt"

	"github.com/hvlab/hvlab/vmbus"
)

// sense knows the message around a field, on which its meaning may depend.
type sense struct {
	m     vmbus.Message
	given vmbus.Version // by the user, or 0
}

// say is the value of a field as text, and what it means.
func (s sense) say(f vmbus.Field) (value, meaning string) {
	switch v := f.Value.(type) {
	case vmbus.GUID:
		return v.String(), s.guid(f.Name, v)
	case vmbus.ChannelID:
		return fmt.Sprint(v), s.channel(v)
	case vmbus.GPADLID:
		return v.String(), ""
	case vmbus.Version:
		return fmt.Sprintf("%#x", uint32(v)), versionMeaning(v)
	case vmbus.Features:
		return fmt.Sprintf("%#x", uint32(v)), v.String()
	case vmbus.OfferFlags:
		return fmt.Sprintf("%#x", uint16(v)), v.String()
	case vmbus.UserData:
		return "", unlessZero(v[:], "the device's own")
	case bool:
		if v {
			return "1", "yes"
		}
		return "0", "no"
	case [112]byte:
		return "", unlessZero(v[:], "the device's own")
	}
	return s.number(f)
}

func (s sense) channel(v vmbus.ChannelID) string {
	if v == 0 || v > vmbus.MaxChannels {
		return fmt.Sprintf("no channel: ids are 1..%d", vmbus.MaxChannels)
	}
	return ""
}

func versionMeaning(v vmbus.Version) string {
	if !v.Known() {
		return "no known version: a host refuses it"
	}
	return "version " + v.String()
}

// number is say for plain numbers, which only their names tell apart.
func (s sense) number(f vmbus.Field) (value, meaning string) {
	n := number(f.Value)
	switch f.Name {
	case "status":
		return fmt.Sprintf("%#x", n), statusMeaning(uint32(n))
	case "target_vp", "target_message_vp":
		if uint32(n) == vmbus.NoInterrupt {
			return fmt.Sprintf("%#x", n), "no interrupts: the guest polls"
		}
		return fmt.Sprint(n), "virtual processor " + fmt.Sprint(n)
	case "parent_to_child_monitor_page", "child_to_parent_monitor_page", "interrupt_page_or_target_info":
		return fmt.Sprintf("%#x", n), gpaMeaning(n)
	case "selected_version_or_connection_id":
		return s.selected(uint32(n))
	case "version_supported":
		return fmt.Sprint(n), map[bool]string{true: "accepted", false: "refused"}[n != 0]
	case "connection_state":
		return fmt.Sprint(n), choose(n, "ok", "low resources", "unknown failure")
	case "connection_id":
		return fmt.Sprintf("%#x", n), connectionMeaning(uint32(n))
	case "monitor_id":
		return fmt.Sprint(n), monitorMeaning(uint8(n))
	case "monitor_allocated":
		return fmt.Sprint(n), choose(n&1, "no monitored notification", "signals go through the monitor page")
	case "is_dedicated":
		return fmt.Sprint(n), choose(n&1, "signals set a bit in the interrupt page, too", "signals go to connection_id alone")
	case "downstream_page_offset":
		return fmt.Sprint(n), fmt.Sprintf("guest to host: pages 0..%d; host to guest: from page %d on", int64(n)-1, n)
	case "sub_channel_index":
		return fmt.Sprint(n), map[bool]string{true: "primary channel", false: "sub-channel"}[n == 0]
	case "event_flag":
		return fmt.Sprint(n), "the host signals with this flag"
	case "open_flags":
		return fmt.Sprintf("%#x", n), choose(n&uint64(vmbus.OpenRedirectInterrupt), "", "RedirectInterrupt")
	case "range_buflen":
		return fmt.Sprint(n), amount(int(n/wordBytes), "word") + ", header and bodies together"
	case "pipe_type":
		return fmt.Sprint(n), map[uint64]string{uint64(vmbus.PipeTypeByte): "byte mode", uint64(vmbus.PipeTypeMessage): "message mode"}[n]
	case "pipe_flags":
		return fmt.Sprintf("%#x", n), choose(n&uint64(vmbus.PipeGPADirect), "", "GPA-direct packets are supported")
	case "parameters_version":
		return fmt.Sprint(n), choose(n, "before RS5", "RS5: the silo counts")
	case "message_number", "interrupt_latency", "interface_revision", "server_context_size":
		if n != 0 {
			return fmt.Sprint(n), "reserved: send 0; receivers ignore it"
		}
		return "0", "reserved"
	}
	return fmt.Sprint(n), ""
}

// choose is the text of a small number, "" if it has none.
func choose(n uint64, texts ...string) string {
	if n < uint64(len(texts)) {
		return texts[n]
	}
	return "no known value"
}

func statusMeaning(status uint32) string {
	if name := vmbus.StatusText(status); name != fmt.Sprintf("0x%08x", status) {
		return name
	}
	if int32(status) > 0 {
		return "failure to Linux, success to OpenVMM: do not send it"
	}
	return "failure"
}

func gpaMeaning(gpa uint64) string {
	switch {
	case gpa == 0:
		return "none"
	case gpa%vmbus.PageBytes != 0:
		return "GPA, not page aligned: a host refuses it"
	}
	return "GPA, PFN " + hexOf(gpa/vmbus.PageBytes)
}

// selected is the word of VersionResponse that changed its meaning at 5.0. Values
// of versions are no connection ids of a known host, so without a version the
// value tells.
func (s sense) selected(v uint32) (value, meaning string) {
	value = fmt.Sprintf("%#x", v)
	switch {
	case v == 0:
		return value, ""
	case vmbus.Version(v).Known() && vmbus.Version(v) < vmbus.Win10V5 && s.given < vmbus.Win10V5:
		return value, "version " + vmbus.Version(v).String() + ", echoed (below 5.0)"
	}
	return value, "connection id for every later message: " + connectionMeaning(v)
}

// connectionMeaning reads a connection id as the known hosts number them.
// Source: vmbus-control.md 1.3, 1.4.
func connectionMeaning(id uint32) string {
	switch id {
	case vmbus.LegacyMessageConnection:
		return "the message port"
	case vmbus.LegacyEventConnection:
		return "the event port of version 0.13"
	case vmbus.MonitorConnection:
		return "the monitor port"
	case vmbus.MultiClientMessageConnection:
		return "the multi-client message port"
	}
	if id&0xF == vmbus.MultiClientMessageConnection && id < 1<<24 && id>>4&0xF == vmbus.SINT {
		return fmt.Sprintf("VTL %d, VP %d, SINT %d if the host is a redirected one", id>>22, id>>8&0x3FFF, id>>4&0xF)
	}
	if sint := id >> 12 & 0xF; sint == vmbus.SINT && id < 1<<18 {
		return fmt.Sprintf("channel %d, SINT %d, VTL %d as OpenVMM numbers them", id&0xFFF, sint, id>>16)
	}
	return ""
}

func monitorMeaning(id uint8) string {
	switch {
	case id == vmbus.NoMonitor:
		return "none"
	case int(id) >= vmbus.MaxMonitorIDs:
		return fmt.Sprintf("ids are 0..%d", vmbus.MaxMonitorIDs-1)
	}
	return fmt.Sprintf("trigger group %d, bit %d", id/32, id%32)
}

// guid names a well-known GUID.
func (s sense) guid(name string, g vmbus.GUID) string {
	if g == (vmbus.GUID{}) {
		return "none"
	}
	if g == vmbus.ClientIDOpenHCL {
		return "OpenHCL"
	}
	if device := vmbus.DeviceName(g); device != "" {
		template := vmbus.InterfaceSocketTemplate
		if [12]byte(g[4:]) == [12]byte(template[4:]) {
			return fmt.Sprintf("%s, port %d", device, le.Uint32(g[:]))
		}
		return device
	}
	return vmbus.InstanceName(g)
}

// split explains a field that is several, and reports whether it did.
func (e *explainer) split(at int, f vmbus.Field, s sense) bool {
	switch {
	case f.Name == "interrupt_page_or_target_info":
		return e.targetInfo(at+f.Offset, f.Value.(uint64), version(s.m))
	case f.Name == "user_defined":
		offer := s.m.(*vmbus.OfferChannel)
		switch {
		case offer.Flags&vmbus.OfferTLNPI != 0:
			u := vmbus.DecodeHVSockUserData(offer.UserDefined)
			e.packed(at+f.Offset, f.Bytes, &u, s)
			return true
		case offer.Flags&vmbus.OfferNamedPipe != 0:
			u := vmbus.DecodePipeUserData(offer.UserDefined)
			e.packed(at+f.Offset, f.Bytes, &u, s)
			return true
		}
	}
	return false
}

func version(m vmbus.Message) vmbus.Version {
	switch m := m.(type) {
	case *vmbus.InitiateContact:
		return m.Version
	case *vmbus.InitiateContact2:
		return m.Version
	}
	return 0
}

// packed explains a struct that lies in n bytes at offset.
func (e *explainer) packed(at, n int, v any, s sense) {
	end := at + n
	for _, f := range vmbus.FieldsOf(v, at) {
		value, meaning := s.say(f)
		if f.Name == "is_for_guest_accept" {
			meaning = map[string]string{"0": "answer to a TLConnectRequest", "1": "the host dials a listener of the guest"}[value]
		}
		e.field(f.Offset, f.Bytes, f.Name, value, meaning)
		at = f.Offset + f.Bytes
	}
	e.padding(at, end-at)
}

// targetInfo explains the word at byte 16 of InitiateContact, which is an address
// below version 5.0. Source: vmbus-control.md 2.4.
func (e *explainer) targetInfo(at int, w uint64, v vmbus.Version) bool {
	if v < vmbus.Win10V5 {
		return false
	}
	info := vmbus.UnpackTargetInfo(v, w)
	next := at + 1
	e.field(at, 1, "target_sint", fmt.Sprint(info.SINT), choose(uint64(info.SINT)^vmbus.SINT, ""))
	if v >= vmbus.Win10RS4 {
		e.field(next, 1, "target_vtl", fmt.Sprint(info.VTL), "")
		next++
	}
	end := at + wordBytes
	if v >= vmbus.Copper {
		end -= 4
	}
	e.padding(next, end-next)
	if v >= vmbus.Copper {
		e.field(end, 4, "feature_flags", fmt.Sprintf("%#x", uint32(info.Features)), info.Features.String())
	}
	return true
}
