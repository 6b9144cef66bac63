package hvsock

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// An Addr names one end of a Hyper-V socket: a partition and a service in it.
// It is comparable, and its own net.Addr. Addresses of Linux guests have a
// second form, see VSockAddr.
type Addr struct {
	VMID      uuid.UUID // one of the well-known ids, or a virtual machine's own
	ServiceID uuid.UUID // of the listener; of a connector, an id of its endpoint
}

// Network is "hvsock".
func (Addr) Network() string { return network }

// String is "vmid:serviceid", both as plain GUIDs. ParseAddr reads it.
func (a Addr) String() string { return a.VMID.String() + ":" + a.ServiceID.String() }

// Short is String with names and ports where there are any, as a person would write
// it: "parent:5000". ParseAddr reads it, too.
func (a Addr) Short() string {
	vm, service := a.VMID.String(), a.ServiceID.String()
	if name := vmWords[a.VMID]; name != "" {
		vm = name
	}
	if port, ok := PortFromServiceID(a.ServiceID); ok {
		service = strconv.FormatUint(uint64(port), 10)
	}
	return vm + ":" + service
}

// MarshalText is String.
func (a Addr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is ParseAddr.
func (a *Addr) UnmarshalText(text []byte) error {
	parsed, err := ParseAddr(string(text))
	if err == nil {
		*a = parsed
	}
	return err
}

// VSock is the AF_VSOCK form of a. ok is false if there is none, because the
// service id is not a port or the VM id has no CID.
func (a Addr) VSock() (v VSockAddr, ok bool) {
	cid, hasCID := cidFromVMID(a.VMID)
	port, hasPort := PortFromServiceID(a.ServiceID)
	if !hasCID || !hasPort {
		return VSockAddr{}, false
	}
	return VSockAddr{CID: cid, Port: port}, true
}

// A VSockAddr is an address as Linux guests see it: a context id and a port.
type VSockAddr struct {
	CID, Port uint32
}

// Network is "vsock".
func (VSockAddr) Network() string { return "vsock" }

// String is like "host(2):5000", "local(1):5000" or "vm(3):5000", as
// mdlayher/vsock prints it.
func (v VSockAddr) String() string {
	name := "vm"
	switch v.CID {
	case CIDHypervisor:
		name = "hypervisor"
	case CIDLocal:
		name = "local"
	case CIDHost:
		name = "host"
	}
	return fmt.Sprintf("%s(%d):%d", name, v.CID, v.Port)
}

// Addr is the GUID form of v: CIDHost is Parent, CIDLocal is Loopback, CIDAny is
// Wildcard. ok is false for other CIDs, which name no Hyper-V partition.
func (v VSockAddr) Addr() (a Addr, ok bool) {
	vmid, ok := vmidFromCID(v.CID)
	if !ok {
		return Addr{}, false
	}
	return Addr{VMID: vmid, ServiceID: ServiceIDFromPort(v.Port)}, true
}

// vmNames are the words ParseAddr takes for a VM id. They are lower case, since
// that is what a URL makes of a host name.
var vmNames = map[string]uuid.UUID{
	"wildcard": Wildcard, "any": Wildcard,
	"broadcast": Broadcast,
	"children":  Children,
	"loopback":  Loopback, "local": Loopback,
	"parent": Parent, "host": Parent,
	"silohost": SiloHost,
}

// vmWords are the words of vmNames that Short says: Microsoft's.
var vmWords = map[uuid.UUID]string{
	Wildcard: "wildcard", Broadcast: "broadcast", Children: "children",
	Loopback: "loopback", Parent: "parent", SiloHost: "silohost",
}

// cidNames are the CIDs of the words that VSockAddr puts in front of a CID in
// parentheses. Before any other it says vm.
var cidNames = map[string]uint32{"hypervisor": CIDHypervisor, "local": CIDLocal, "host": CIDHost}

// ParseAddr reads an address of the form VM:SERVICE.
//
// VM is a GUID, a name (wildcard or any, broadcast, children, loopback or
// local, parent or host, silohost; in upper or lower case), or a CID as in
// host(2), local(1), vm(4294967295) or plain 2. SERVICE is a GUID or a port
// number from 0 to 4294967295. GUIDs are in their plain 36-character form.
// Whatever ParseAddr accepts, String turns into "vmid:serviceid".
//
// The error is an *AddrError, which says what is wrong with which part.
func ParseAddr(text string) (Addr, error) {
	vm, service, found := strings.Cut(text, ":")
	if !found {
		return Addr{}, &AddrError{Text: text, Reason: "no colon; want VM:SERVICE, as in parent:5000"}
	}
	var a Addr
	var reason string
	if a.VMID, reason = parseVM(vm); reason != "" {
		return Addr{}, &AddrError{Text: text, Reason: reason}
	}
	if a.ServiceID, reason = parseService(service); reason != "" {
		return Addr{}, &AddrError{Text: text, Reason: reason}
	}
	return a, nil
}

// parseVM reads the part in front of the colon; reason is empty if that went
// well.
func parseVM(text string) (id uuid.UUID, reason string) {
	if text == "" {
		return id, "no VM in front of the colon; want a GUID or a name such as parent or wildcard"
	}
	if id, ok := parseGUID(text); ok {
		return id, ""
	}
	lower := strings.ToLower(text)
	if id, ok := vmNames[lower]; ok {
		return id, ""
	}
	digits := lower
	name, rest, _ := strings.Cut(lower, "(")
	named, known := cidNames[name]
	if (known || name == "vm") && strings.HasSuffix(rest, ")") {
		digits = strings.TrimSuffix(rest, ")")
	}
	cid, ok := parseUint32(digits)
	switch {
	case !ok:
		return id, fmt.Sprintf("VM %q is neither a GUID, nor a known name, nor a CID", text)
	case known && cid != named:
		return id, fmt.Sprintf("VM %q: %s is CID %d", text, name, named)
	}
	if id, ok = vmidFromCID(cid); !ok {
		return id, fmt.Sprintf("CID %d names no Hyper-V partition; want 1, 2 or 4294967295, or the VM's GUID", cid)
	}
	return id, ""
}

// parseService reads the part behind the colon; reason is empty if that went
// well.
func parseService(text string) (id uuid.UUID, reason string) {
	if text == "" {
		return id, "no service behind the colon; want a GUID or a port number"
	}
	if id, ok := parseGUID(text); ok {
		return id, ""
	}
	port, ok := parseUint32(text)
	if !ok {
		return id, fmt.Sprintf("service %q is neither a GUID nor a port number up to 4294967295", text)
	}
	return ServiceIDFromPort(port), ""
}

// parseGUID reads the plain form only: uuid.Parse also takes URNs, whose colons
// would not survive here, and 38 characters between anything.
func parseGUID(text string) (uuid.UUID, bool) {
	if len(text) != len("00000000-0000-0000-0000-000000000000") {
		return uuid.UUID{}, false
	}
	id, err := uuid.Parse(text)
	return id, err == nil
}

// parseUint32 reads plain decimal digits: no sign, no underscores.
func parseUint32(text string) (uint32, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil
}
