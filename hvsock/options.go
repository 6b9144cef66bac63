package hvsock

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// An Option is a socket option, by level and number as getsockopt and setsockopt
// take them. Its value is an int64 in the unit that OptionInfo names.
// Source of the table: hvsock.md 9.
type Option struct{ Level, Number int }

// Levels of options.
const (
	LevelHyperV = 1      // HV_PROTOCOL_RAW of Windows
	LevelVSock  = 40     // AF_VSOCK of Linux
	LevelSocket = 0xFFFF // SOL_SOCKET of Windows; on Linux it is 1, like LevelHyperV
)

// The options that Hyper-V sockets know.
var (
	// ConnectTimeout is how long a dial may take, in ms; at most
	// MaxConnectTimeout. 0 means what the profile says.
	ConnectTimeout = Option{LevelHyperV, 0x01}
	// ContainerPassthru passes a container's connection to Parent through to
	// the host of its VM.
	ContainerPassthru = Option{LevelHyperV, 0x02}
	// ConnectedSuspend keeps a host's connection while its VM is paused.
	ConnectedSuspend = Option{LevelHyperV, 0x04}
	// HighVTL makes a host dial the guest's VTL 2. Guests here have none.
	HighVTL = Option{LevelHyperV, 0x08}

	// VSockBufferSize, VSockBufferMinSize and VSockBufferMaxSize are kept, and
	// kept in order, and have no effect on Hyper-V sockets. Bytes.
	VSockBufferSize    = Option{LevelVSock, 0}
	VSockBufferMinSize = Option{LevelVSock, 1}
	VSockBufferMaxSize = Option{LevelVSock, 2}
	// VSockPeerHostVMID, VSockTrusted and VSockNonblockTxRx are VMCI's; here
	// they are ENOPROTOOPT.
	VSockPeerHostVMID = Option{LevelVSock, 3}
	VSockTrusted      = Option{LevelVSock, 5}
	VSockNonblockTxRx = Option{LevelVSock, 7}
	// VSockConnectTimeout is how long a dial may take, in µs; 0 means 2 s.
	// VSockConnectTimeoutNew is the same with 64-bit seconds on all machines.
	VSockConnectTimeout    = Option{LevelVSock, 6}
	VSockConnectTimeoutNew = Option{LevelVSock, 8}

	// SendBuffer and RecvBuffer are hints, in bytes, for the sizes of the rings
	// that a guest opens. Only before a connection, see Profile.RingHints.
	SendBuffer = Option{LevelSocket, 0x1001}
	RecvBuffer = Option{LevelSocket, 0x1002}
)

// MaxConnectTimeout is HVSOCKET_CONNECT_TIMEOUT_MAX.
const MaxConnectTimeout = 300_000 * time.Millisecond

// An OptionInfo describes an option.
type OptionInfo struct {
	Option
	Name  string // as the headers have it
	Bytes int    // of the value at getsockopt
	Unit  string // of the value here: "ms", "µs", "bytes" or "flag"
}

// options is every option there is.
var options = []OptionInfo{
	{ConnectTimeout, "HVSOCKET_CONNECT_TIMEOUT", 4, "ms"},
	{ContainerPassthru, "HVSOCKET_CONTAINER_PASSTHRU", 4, "flag"},
	{ConnectedSuspend, "HVSOCKET_CONNECTED_SUSPEND", 4, "flag"},
	{HighVTL, "HVSOCKET_HIGH_VTL", 4, "flag"},
	{VSockBufferSize, "SO_VM_SOCKETS_BUFFER_SIZE", 8, "bytes"},
	{VSockBufferMinSize, "SO_VM_SOCKETS_BUFFER_MIN_SIZE", 8, "bytes"},
	{VSockBufferMaxSize, "SO_VM_SOCKETS_BUFFER_MAX_SIZE", 8, "bytes"},
	{VSockPeerHostVMID, "SO_VM_SOCKETS_PEER_HOST_VM_ID", 4, ""},
	{VSockTrusted, "SO_VM_SOCKETS_TRUSTED", 4, ""},
	{VSockNonblockTxRx, "SO_VM_SOCKETS_NONBLOCK_TXRX", 4, ""},
	{VSockConnectTimeout, "SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD", 16, "µs"},
	{VSockConnectTimeoutNew, "SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW", 16, "µs"},
	{SendBuffer, "SO_SNDBUF", 4, "bytes"},
	{RecvBuffer, "SO_RCVBUF", 4, "bytes"},
}

// Options returns every option there is.
func Options() []OptionInfo { return slices.Clone(options) }

// OptionByName finds an option by its name in the headers. On 64-bit Linux
// SO_VM_SOCKETS_CONNECT_TIMEOUT is the OLD one.
func OptionByName(name string) (Option, bool) {
	if name == "SO_VM_SOCKETS_CONNECT_TIMEOUT" {
		return VSockConnectTimeout, true
	}
	for _, o := range options {
		if o.Name == name {
			return o.Option, true
		}
	}
	return Option{}, false
}

// String is the option's name, or level and number.
func (o Option) String() string {
	if i := o.info(); i != nil {
		return i.Name
	}
	return fmt.Sprintf("option %d of level %d", o.Number, o.Level)
}

func (o Option) info() *OptionInfo {
	for i := range options {
		if options[i].Option == o {
			return &options[i]
		}
	}
	return nil
}

// Encode is value as getsockopt returns it on a 64-bit machine of this byte
// order: a ULONG, a u64, or a struct timeval. nil if o is unknown.
func (o Option) Encode(value int64) []byte {
	i := o.info()
	switch {
	case i == nil:
		return nil
	case i.Bytes == 4:
		return binary.NativeEndian.AppendUint32(nil, uint32(value))
	case i.Bytes == 8:
		return binary.NativeEndian.AppendUint64(nil, uint64(value))
	}
	b := binary.NativeEndian.AppendUint64(nil, uint64(value/1e6))
	return binary.NativeEndian.AppendUint64(b, uint64(value%1e6))
}

// Decode reads what setsockopt is given. Errors are EINVAL for another size than
// the option's, ENOPROTOOPT for an unknown one, ERANGE for a timeval that is out
// of range.
func (o Option) Decode(b []byte) (value int64, err error) {
	i := o.info()
	switch {
	case i == nil:
		return 0, syscall.ENOPROTOOPT
	case len(b) != i.Bytes:
		return 0, syscall.EINVAL
	case i.Bytes == 4:
		return int64(binary.NativeEndian.Uint32(b)), nil
	case i.Bytes == 8:
		n := binary.NativeEndian.Uint64(b)
		return int64(min(n, math.MaxInt64)), nil
	}
	seconds, micros := int64(binary.NativeEndian.Uint64(b)), int64(binary.NativeEndian.Uint64(b[8:]))
	if seconds < 0 || seconds > maxVSockTimeout/1_000_000 || micros < 0 || micros >= 1e6 {
		return 0, syscall.ERANGE
	}
	return seconds*1e6 + micros, nil
}

// Defaults of options that are not 0. Source: hvsock.md 8 and 9.
var optionDefaults = map[Option]int64{
	VSockBufferSize: 262144, VSockBufferMinSize: 128, VSockBufferMaxSize: 262144,
	VSockConnectTimeout: defaultDialTimeout.Microseconds(), VSockConnectTimeoutNew: defaultDialTimeout.Microseconds(),
	SendBuffer: minRingHintBytes, RecvBuffer: minRingHintBytes,
}

// maxVSockTimeout, in µs, keeps a timeout a time.Duration.
const maxVSockTimeout = math.MaxInt64 / 1000

// An optionSet is the options of one socket; the zero value has the defaults.
type optionSet struct {
	mu     sync.Mutex
	values map[Option]int64 // those that were set
}

// get returns the value of o. Errors are bare errnos.
func (s *optionSet) get(o Option, family OptionFamily) (int64, error) {
	if i := o.info(); i == nil || i.Unit == "" || !family.knows(o) {
		return 0, syscall.ENOPROTOOPT
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at(o), nil
}

func (s *optionSet) at(o Option) int64 {
	if v, ok := s.values[o]; ok {
		return v
	}
	return optionDefaults[o]
}

// set changes an option. Errors are bare errnos.
func (s *optionSet) set(o Option, value int64, family OptionFamily) error {
	if i := o.info(); i == nil || i.Unit == "" || !family.knows(o) {
		return syscall.ENOPROTOOPT
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[Option]int64{}
	}
	if value < 0 && o.Level == LevelVSock && o.info().Unit == "bytes" {
		return syscall.EINVAL
	}
	switch o {
	case ConnectTimeout:
		if value < 0 || value > MaxConnectTimeout.Milliseconds() {
			return syscall.EINVAL
		}
	case VSockConnectTimeout, VSockConnectTimeoutNew:
		if value < 0 || value > maxVSockTimeout {
			return syscall.ERANGE
		}
		if value == 0 {
			value = defaultDialTimeout.Microseconds()
		}
		s.values[VSockConnectTimeout], s.values[VSockConnectTimeoutNew] = value, value
	case VSockBufferSize:
		value = min(max(value, s.at(VSockBufferMinSize)), s.at(VSockBufferMaxSize))
	case VSockBufferMinSize: // a new bound moves the size into the range
		s.values[VSockBufferSize] = max(value, s.at(VSockBufferSize))
	case VSockBufferMaxSize:
		s.values[VSockBufferSize] = min(value, s.at(VSockBufferSize))
	default:
		if value < 0 || value > math.MaxUint32 {
			return syscall.EINVAL
		}
	}
	s.values[o] = value
	return nil
}

// inherit makes s a copy of from.
func (s *optionSet) inherit(from *optionSet) {
	from.mu.Lock()
	values := maps.Clone(from.values)
	from.mu.Unlock()
	if values == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = values
}

// flag reports whether an option is set to anything but 0.
func (s *optionSet) flag(o Option) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at(o) != 0
}

// timeout is what the options say of a dial's time; 0 is nothing.
func (s *optionSet) timeout() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ms := s.values[ConnectTimeout]; ms != 0 {
		return time.Duration(ms) * time.Millisecond
	}
	return time.Duration(s.values[VSockConnectTimeout]) * time.Microsecond
}

// ringHints are the buffer sizes that were asked for; 0 is none.
func (s *optionSet) ringHints() (sendBytes, recvBytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values[SendBuffer], s.values[RecvBuffer]
}

// An OptionFamily is the options that a system knows.
type OptionFamily uint8

const (
	AllOptions    OptionFamily = iota
	VSockOptions               // Linux
	HyperVOptions              // Windows
	SocketOptions              // SOL_SOCKET only
)

func (f OptionFamily) knows(o Option) bool {
	switch o.Level {
	case LevelHyperV:
		return f == AllOptions || f == HyperVOptions
	case LevelVSock:
		return f == AllOptions || f == VSockOptions
	}
	return true
}

// The range of a buffer size that becomes a ring, and what Linux does with the
// control page: from ringHeaderStolenBytes on it is one of the request's pages,
// below it is added. Source: ringbuffer.md 12.
const (
	minRingHintBytes      = 24 << 10
	maxRingHintBytes      = 256 << 10
	ringHeaderStolenBytes = 32 << 10
	ringPageBytes         = 4096
)

// pages is the size of the ring for a buffer of so many bytes, or byDefault if
// there was no request.
func (h RingHints) pages(bytes int64, byDefault int) (pages int) {
	if bytes == 0 {
		return byDefault
	}
	bytes = min(max(bytes, minRingHintBytes), maxRingHintBytes)
	if h == HintsWholeRing {
		return int(bytes / ringPageBytes)
	}
	pages = int((bytes + ringPageBytes - 1) / ringPageBytes)
	if bytes < ringHeaderStolenBytes {
		pages++
	}
	return pages
}

// optionCall names the system call in the errors of get and set.
func optionCall(op string, err error) error {
	if err == nil {
		return nil
	}
	return os.NewSyscallError(op+"sockopt", err)
}
