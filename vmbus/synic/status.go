package synic

import "fmt"

// Status is the result of a hypercall (HV_STATUS). It is an error, so that a
// caller who needs one can use it as it is; see Err. Source: vmbus-control.md
// 9.6.
type Status uint16

// Results of the two hypercalls. Linux retries a post only after
// StatusInsufficientMemory, StatusInsufficientBuffers and (InitiateContact
// apart) StatusInvalidConnectionID; the others are final.
const (
	StatusSuccess               Status = 0
	StatusInvalidHypercallCode  Status = 2  // no such call, or not in this form
	StatusInvalidHypercallInput Status = 3  // reserved bits, block too short
	StatusInvalidAlignment      Status = 4  // input not aligned to 8, or across two pages
	StatusInvalidParameter      Status = 5  // payload size, message type, flag number, absent page
	StatusAccessDenied          Status = 6  // no privilege
	StatusOperationDenied       Status = 8  // VTL too low
	StatusInsufficientMemory    Status = 11 // transient
	StatusInvalidPortID         Status = 17 // the port is of the other type
	StatusInvalidConnectionID   Status = 18 // nothing is bound
	StatusInsufficientBuffers   Status = 19 // queue full; the only refusal a full host may use
	StatusTimeout               Status = 120
)

var statusNames = map[Status]string{
	StatusSuccess:               "SUCCESS",
	StatusInvalidHypercallCode:  "INVALID_HYPERCALL_CODE",
	StatusInvalidHypercallInput: "INVALID_HYPERCALL_INPUT",
	StatusInvalidAlignment:      "INVALID_ALIGNMENT",
	StatusInvalidParameter:      "INVALID_PARAMETER",
	StatusAccessDenied:          "ACCESS_DENIED",
	StatusOperationDenied:       "OPERATION_DENIED",
	StatusInsufficientMemory:    "INSUFFICIENT_MEMORY",
	StatusInvalidPortID:         "INVALID_PORT_ID",
	StatusInvalidConnectionID:   "INVALID_CONNECTION_ID",
	StatusInsufficientBuffers:   "INSUFFICIENT_BUFFERS",
	StatusTimeout:               "TIMEOUT",
}

// String returns the name without its HV_STATUS_ prefix, or the number.
func (s Status) String() string {
	if name, ok := statusNames[s]; ok {
		return name
	}
	return fmt.Sprintf("HV_STATUS(%d)", uint16(s))
}

// Error makes a Status an error. StatusSuccess is one too: use Err.
func (s Status) Error() string { return "synic: hypercall: " + s.String() }

// Err returns nil for StatusSuccess and the Status itself otherwise.
func (s Status) Err() error {
	if s == StatusSuccess {
		return nil
	}
	return s
}
