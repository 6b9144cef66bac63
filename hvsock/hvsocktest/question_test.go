package hvsocktest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
)

// Names of questions and behaviours share one table.
func TestQuestions(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range Behaviours() {
		seen[b.Name] = true
	}
	for _, q := range Questions() {
		require.False(t, seen[q.Name], q.Name)
		seen[q.Name] = true
		require.NotContains(t, q.Name, " ")
		require.True(t, strings.HasSuffix(q.Text, "?"), q.Text)
		require.True(t, strings.HasPrefix(q.Section, "hvsock.md "), q.Section)
	}
}

// The answers of a host to itself, each with where they come from.
func TestAnswersOfLoopback(t *testing.T) {
	tr := loopback(t)
	want := map[string]string{
		"DialNobody":               "ECONNREFUSED at once", // nobody has to be asked
		"DialStranger":             "EHOSTUNREACH at once", // hvsock.md 16, own choice
		"ListenAnyPort":            "at a port above 1023",
		"ListenTwiceElsewhere":     "yes", // one listener per VM id and service
		"WriteAfterPeerCloseRead":  "success for a second",
		"ReadAfterPeerCloseUnread": "io.EOF", // a close is orderly whatever is unread
	}
	for _, q := range Questions() {
		answer := q.Ask(tr)
		t.Logf("%s %s", q.Name, answer)
		require.NotContains(t, answer, "fails", "%s: every question has an answer here", q.Name)
		if w, ok := want[q.Name]; ok {
			require.Equal(t, w, answer, q.Name)
		}
	}
}

// A question that cannot be put says so, in words that are the same every time.
func TestQuestionThatFails(t *testing.T) {
	tr := loopback(t)
	tr.Listen = func(addr hvsock.Addr) (Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "hvsock", Addr: addr, Err: os.NewSyscallError("bind", syscall.EACCES)}
	}
	for _, q := range Questions() {
		if q.Name == "ReadJoins" {
			require.Equal(t, "fails: Listen: bind: permission denied", q.Ask(tr))
		}
	}
	for _, b := range Behaviours() {
		if b.Name == "Echo" {
			require.Equal(t, "broken: Listen: bind: permission denied", b.Answer(tr))
		}
	}
}

func TestAnswersOfBehaviours(t *testing.T) {
	tr := loopback(t)
	require.Equal(t, "kept", Behaviours()[0].Answer(tr))
}

func TestPlain(t *testing.T) {
	for from, to := range map[string]string{
		"Read ends after 10 of 3000 bytes: EOF":                                 "Read ends after some bytes: EOF",
		"byte 12 is 0x1, was written as 0xff":                                   "a byte is wrong",
		"Write: write hvsock a:b->c:d: write: broken pipe":                      "Write: write: broken pipe",
		"Dial gives dial hvsock a:b: connect: reset, want [refused]":            "Dial gives connect: reset, want [refused]",
		"the second Close gives <nil>, want [use of closed network connection]": "the second Close gives <nil>, want [use of closed network connection]",
	} {
		require.Equal(t, to, plain(from))
	}
}

func TestSaid(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "success"},
		{io.EOF, "io.EOF"},
		{fmt.Errorf("wrapped: %w", net.ErrClosed), "net.ErrClosed"},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, "a timeout"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ETIMEDOUT)}, "ETIMEDOUT"},
		{errors.New("something else, 10 bytes"), "something else, some bytes"},
	} {
		require.Equal(t, c.want, said(c.err))
	}
}
