package demo

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// briefNames are the fields that tell a story, and their short names. An offer's
// interface is the service of a socket, its instance the endpoint.
var briefNames = map[string]string{
	"version_requested":      "version",
	"version_supported":      "supported",
	"channel_id":             "channel",
	"gpadl_id":               "gpadl",
	"ring_buffer_gpadl":      "gpadl",
	"open_id":                "open_id",
	"downstream_page_offset": "host_ring_at_page",
	"status":                 "status",
	"service_id":             "service",
	"interface_id":           "service",
	"endpoint_id":            "endpoint",
	"instance_id":            "endpoint",
	"error":                  "error",
}

// brief is the part of an event's fields that tells the story of a connection.
func brief(e trace.Event) string {
	var words []string
	for _, f := range e.Fields {
		if name := briefNames[f.Name]; name != "" {
			words = append(words, name+"="+briefValue(name, f.Value))
		}
	}
	switch {
	case is(e, vmbus.TypeGPADLHeader) && field[uint16](e, "range_count") == 1:
		words = append(words, fmt.Sprintf("pages=%d", gpadlPages(e)))
	case socketOffer(e):
		accept := 0
		if forGuestAccept(e) {
			accept = 1
		}
		words = append(words, fmt.Sprintf("is_for_guest_accept=%d", accept))
	}
	return strings.Join(words, " ")
}

func briefValue(name string, v any) string {
	id, ok := v.(vmbus.GUID)
	switch {
	case !ok:
		return fmt.Sprint(v)
	case name == "endpoint":
		return id.String()[:8] + ".."
	}
	return serviceName(id.UUID())
}

// serviceName is "port:5000" for a port, and the GUID for any other service.
func serviceName(id uuid.UUID) string {
	if p, ok := hvsock.PortFromServiceID(id); ok {
		return fmt.Sprintf("port:%d", p)
	}
	return id.String()
}
