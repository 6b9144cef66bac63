package kerneltest

import "fmt"

// Operations of the agent. Fields of Request not named are ignored.
const (
	OpInfo     = "info"     // Output: kernel release
	OpServe    = "serve"    // Port, Service, Bytes, Seed: accept connections and serve them until OpUnlisten
	OpListen   = "listen"   // Port, Backlog: listen only; OpAccept takes connections
	OpUnlisten = "unlisten" // Port: stop listening, and close what Hold holds
	OpAccept   = "accept"   // Port, TimeoutMillis: Handle
	OpDial     = "dial"     // CID, Port, Options: connect (blocking, as most programs do): Handle, Millis
	OpWrite    = "write"    // Handle, Bytes, Seed: write the pattern; Bytes written
	OpRead     = "read"     // Handle, Bytes, Seed, TimeoutMillis: read and check up to Bytes; Bytes, EOF
	OpShutdown = "shutdown" // Handle, How: "read", "write" or "both"
	OpClose    = "close"    // Handle
	OpRun      = "run"      // CID, Port, Service, Bytes, Seed, Count, Parallel: whole exchanges
	OpLog      = "log"      // Text: lines of the kernel's log that contain it: Output
	OpExec     = "exec"     // Args: Output, Exit
	OpQuit     = "quit"     // the agent ends, and /init powers the guest off
)

// A Request asks the agent for one operation. Requests run at the same time.
type Request struct {
	ID            uint64            `json:"id"`
	Op            string            `json:"op"`
	CID           uint32            `json:"cid,omitempty"` // 2, the host, if zero
	Port          uint32            `json:"port,omitempty"`
	Handle        int               `json:"handle,omitempty"`
	Service       Service           `json:"service,omitempty"`
	Bytes         int64             `json:"bytes,omitempty"`
	Seed          uint64            `json:"seed,omitempty"`
	Count         int               `json:"count,omitempty"`    // exchanges, 1 if zero
	Parallel      int               `json:"parallel,omitempty"` // of these at once, 1 if zero
	Backlog       int               `json:"backlog,omitempty"`
	How           string            `json:"how,omitempty"`
	TimeoutMillis int               `json:"timeout_millis,omitempty"` // none if zero
	Options       map[string]uint64 `json:"options,omitempty"`        // SO_SNDBUF, SO_RCVBUF, SO_VM_SOCKETS_BUFFER_SIZE, ..._CONNECT_TIMEOUT_MILLIS
	Text          string            `json:"text,omitempty"`
	Args          []string          `json:"args,omitempty"`
}

// A Response answers the request with the same ID.
type Response struct {
	ID     uint64  `json:"id"`
	Error  string  `json:"error,omitempty"` // what failed, for people
	Errno  string  `json:"errno,omitempty"` // "ECONNREFUSED", if a system call failed
	Handle int     `json:"handle,omitempty"`
	Bytes  int64   `json:"bytes,omitempty"`
	EOF    bool    `json:"eof,omitempty"`
	Millis float64 `json:"millis,omitempty"` // how long it took in the guest
	Output string  `json:"output,omitempty"`
	Exit   int     `json:"exit,omitempty"`

	Done   int            `json:"done,omitempty"`   // of OpRun: exchanges that succeeded
	Failed map[string]int `json:"failed,omitempty"` // of OpRun: errno or text, and how often
}

// A RemoteError reports an operation that failed inside the guest.
type RemoteError struct {
	Op    string
	Errno string // "ECONNREFUSED", or "" if no system call failed
	Text  string
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("kerneltest: in the guest: %s: %s", e.Op, e.Text)
}
