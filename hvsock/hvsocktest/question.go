package hvsocktest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"syscall"
	"time"
)

// A Question is something that real systems answer differently, and that none of
// them promises: the specification names the answers it knows. Applications that
// depend on an answer work on one system only.
type Question struct {
	Name    string // short, for test names and tables
	Section string // of the specification hvsock.md
	Text    string // one sentence

	ask func(*session) string
}

// Questions is every question, in the order a reader would want them.
func Questions() []Question { return slices.Clone(questions) }

// Ask puts the question to tr, on connections and listeners of its own. The
// answer is a few words that are the same whenever tr behaves the same; so it
// has no addresses, and durations only roughly.
func (q Question) Ask(tr Transport) (answer string) {
	answered := make(chan string, 1)
	reason := attempt(tr, func(s *session) { answered <- q.ask(s) })
	if reason != "" {
		return "fails: " + plain(reason)
	}
	return <-answered
}

// Answer is Check in the words of a table: "kept", or "broken: " and how, without
// what changes from run to run.
func (b Behaviour) Answer(tr Transport) string {
	if reason := attempt(tr, b.check); reason != "" {
		return "broken: " + plain(reason)
	}
	return "kept"
}

var (
	// addresses are what *net.OpError prints between its operation and its cause.
	addresses = regexp.MustCompile(`\b(accept|close|dial|listen|read|set|write) hvsock \S+: `)
	amounts   = regexp.MustCompile(`\b\d+ (of \d+ )?bytes`)
	offsets   = regexp.MustCompile(`\bbyte \d+ is 0x[0-9a-f]+, was written as 0x[0-9a-f]+`)
)

// plain is text without addresses and numbers that are different in every run.
func plain(text string) string {
	text = addresses.ReplaceAllString(text, "")
	text = amounts.ReplaceAllString(text, "some bytes")
	return offsets.ReplaceAllString(text, "a byte is wrong")
}

// errnos are the error numbers that sockets of any system give.
var errnos = []struct {
	name string
	err  syscall.Errno
}{
	{"EACCES", syscall.EACCES}, {"EADDRINUSE", syscall.EADDRINUSE}, {"EADDRNOTAVAIL", syscall.EADDRNOTAVAIL},
	{"EAFNOSUPPORT", syscall.EAFNOSUPPORT}, {"EAGAIN", syscall.EAGAIN}, {"ECONNABORTED", syscall.ECONNABORTED},
	{"ECONNREFUSED", syscall.ECONNREFUSED}, {"ECONNRESET", syscall.ECONNRESET}, {"EHOSTUNREACH", syscall.EHOSTUNREACH},
	{"EINVAL", syscall.EINVAL}, {"EIO", syscall.EIO}, {"ENETUNREACH", syscall.ENETUNREACH}, {"ENOBUFS", syscall.ENOBUFS},
	{"ENODEV", syscall.ENODEV}, {"ENOMEM", syscall.ENOMEM}, {"ENOTCONN", syscall.ENOTCONN},
	{"EOPNOTSUPP", syscall.EOPNOTSUPP}, {"EPIPE", syscall.EPIPE}, {"ETIMEDOUT", syscall.ETIMEDOUT},
}

// said is err in a word.
func said(err error) string {
	switch {
	case err == nil:
		return "success"
	case err == io.EOF:
		return "io.EOF"
	case errors.Is(err, net.ErrClosed):
		return "net.ErrClosed"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "a timeout"
	}
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.name
		}
	}
	return plain(err.Error())
}

// took is a duration since start, roughly.
func took(start time.Time) string {
	switch d := time.Since(start); {
	case d < time.Second:
		return "at once"
	case d < 4*time.Second:
		return "after about 2 s"
	default:
		return fmt.Sprintf("after about %.0f s", d.Seconds())
	}
}
