package native

import (
	"errors"
	"os"
	"syscall"
)

// A WinsockError is an error number of Windows together with the errno that
// other systems use for it, so that errors.Is finds syscall.ECONNREFUSED on
// every system: the constants of package syscall on Windows are invented, and
// match nothing that Winsock returns.
type WinsockError struct {
	Code  syscall.Errno // as Windows returns it, for instance 10061
	Errno syscall.Errno // for instance ECONNREFUSED
}

// Error is Windows' own text.
func (e *WinsockError) Error() string { return e.Code.Error() }

// Is matches the errno and what that one matches, such as os.ErrPermission.
func (e *WinsockError) Is(target error) bool { return target == e.Errno || e.Errno.Is(target) }

// Unwrap returns the number of Windows.
func (e *WinsockError) Unwrap() error { return e.Code }

// Timeout says whether the errno is ETIMEDOUT, as net.Error wants it.
func (e *WinsockError) Timeout() bool { return e.Errno == syscall.ETIMEDOUT }

// winsockErrnos are the numbers that calls on AF_HYPERV sockets are known to
// return, those of Winsock first, then those of Win32 that the completion of an
// overlapped call carries.
// Source: hvsock.md 10; Windows SDK, winsock2.h and winerror.h.
var winsockErrnos = map[syscall.Errno]syscall.Errno{
	10004: syscall.EINTR,
	10013: syscall.EACCES, // also: the service is not registered
	10022: syscall.EINVAL,
	10024: syscall.EMFILE,
	10035: syscall.EAGAIN,
	10036: syscall.EINPROGRESS,
	10037: syscall.EALREADY,
	10038: syscall.ENOTSOCK,
	10043: syscall.EAFNOSUPPORT, // WSAEPROTONOSUPPORT: the family without its protocol
	10044: syscall.EAFNOSUPPORT, // WSAESOCKTNOSUPPORT, likewise
	10045: syscall.EOPNOTSUPP,
	10047: syscall.EAFNOSUPPORT,
	10048: syscall.EADDRINUSE,
	10049: syscall.EADDRNOTAVAIL,
	10050: syscall.ENETDOWN,
	10051: syscall.ENETUNREACH,
	10052: syscall.ECONNRESET, // WSAENETRESET
	10053: syscall.ECONNABORTED,
	10054: syscall.ECONNRESET,
	10055: syscall.ENOBUFS,
	10056: syscall.EISCONN,
	10057: syscall.ENOTCONN,
	10058: syscall.EPIPE, // WSAESHUTDOWN
	10060: syscall.ETIMEDOUT,
	10061: syscall.ECONNREFUSED,
	10064: syscall.EHOSTDOWN,
	10065: syscall.EHOSTUNREACH,

	5:    syscall.EACCES,       // ERROR_ACCESS_DENIED
	64:   syscall.ECONNRESET,   // ERROR_NETNAME_DELETED
	109:  syscall.EPIPE,        // ERROR_BROKEN_PIPE
	121:  syscall.ETIMEDOUT,    // ERROR_SEM_TIMEOUT
	1225: syscall.ECONNREFUSED, // ERROR_CONNECTION_REFUSED
	1229: syscall.ENOTCONN,     // ERROR_CONNECTION_INVALID
	1231: syscall.ENETUNREACH,  // ERROR_NETWORK_UNREACHABLE
	1232: syscall.EHOSTUNREACH, // ERROR_HOST_UNREACHABLE
	1236: syscall.ECONNABORTED, // ERROR_CONNECTION_ABORTED
}

// winsockErrno is system.errno for Windows. A number that is not in the table
// stays as it is.
func winsockErrno(call string, err error) error {
	var code syscall.Errno
	if !errors.As(err, &code) {
		return os.NewSyscallError(call, err)
	}
	errno, ok := winsockErrnos[code]
	if !ok {
		return os.NewSyscallError(call, code)
	}
	// On an open connection the two codes say the same: the other end is gone
	// without a word. hvsock has one errno for that.
	if errno == syscall.ECONNABORTED && (call == "read" || call == "write") {
		errno = syscall.ECONNRESET
	}
	return os.NewSyscallError(call, &WinsockError{Code: code, Errno: errno})
}
