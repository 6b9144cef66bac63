package script

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/vmbus"
)

// args reads the arguments of a directive. The first wrong one is kept in err;
// what is read then is a zero value, and the run ends after the directive.
type args struct {
	Directive
	known map[string]bool // what was asked for
	err   *Mistake
}

// wrong records a mistake about key.
func (a *args) wrong(key, format string, values ...any) {
	if a.err == nil {
		a.err = mistake(a.Line, "%s: %s", key, fmt.Sprintf(format, values...))
	}
}

// has reports whether the argument key is there, with or without a value.
func (a *args) has(key string) bool {
	a.known[key] = true
	return slices.ContainsFunc(a.Args, func(arg Arg) bool { return arg.Key == key })
}

// text returns the value of an argument, or def.
func (a *args) text(key, def string) string {
	if !a.has(key) {
		return def
	}
	for _, arg := range a.Args {
		if arg.Key != key {
			continue
		}
		if len(arg.Values) != 1 || arg.Values[0] == "" {
			a.wrong(key, "it needs one value; write %s=VALUE", key)
			return def
		}
		return arg.Values[0]
	}
	return def
}

// word returns the value of an argument that is one of a few words, or def.
func (a *args) word(key, def string, words ...string) string {
	s := a.text(key, def)
	if s != def && !slices.Contains(words, s) {
		a.wrong(key, "%q is not among its values; write %s", s, strings.Join(words, " or "))
		return def
	}
	return s
}

// num returns the value of a numeric argument, or def.
func num[T ~uint8 | ~uint16 | ~uint32 | ~uint64](a *args, key string, def T) T {
	s := a.text(key, "")
	if s == "" {
		return def
	}
	n := a.number(key, s)
	if uint64(T(n)) == n {
		return T(n)
	}
	a.wrong(key, "%s is too large; write at most %d", s, uint64(^T(0)))
	return def
}

// number reads any base.
func (a *args) number(key, s string) uint64 {
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		a.wrong(key, "%q is no number; write for example 7 or 0x1000", s)
	}
	return n
}

func (a *args) channel() vmbus.ChannelID { return num[vmbus.ChannelID](a, "channel", 0) }

// version returns a version such as 5.3; 0 if it is not there.
func (a *args) version(key string) vmbus.Version {
	s := a.text(key, "")
	if s == "" {
		return 0
	}
	v, err := vmbus.ParseVersion(s)
	if err != nil {
		a.wrong(key, "%v", err)
	}
	return v
}

func (a *args) guid(key, def string) vmbus.GUID {
	s := a.text(key, def)
	g, err := parseGUID(s)
	if err != nil {
		a.wrong(key, "%q is no GUID; write port:1388, or its first eight digits, or all of it", s)
	}
	return g
}

// userData returns hexadecimal bytes, zeros after them.
func (a *args) userData(key string) (u vmbus.UserData) {
	s := a.text(key, "")
	b, err := hex.DecodeString(s)
	if err != nil || len(b) > len(u) {
		a.wrong(key, "%q is no user data; write at most %d bytes as pairs of hexadecimal digits", s, len(u))
		return u
	}
	copy(u[:], b)
	return u
}

// socketPort is what follows the port in the GUID of a Linux port
// (hvsock.md 2).
const socketPort = "-facb-11e6-bd58-64006a7986d3"

// parseGUID reads a whole GUID, its first group, or "port:HEX".
func parseGUID(s string) (vmbus.GUID, error) {
	if port, ok := strings.CutPrefix(s, "port:"); ok {
		s = fmt.Sprintf("%08s%s", port, socketPort)
	} else if len(s) == 8 {
		s += "-0000-0000-0000-000000000000"
	}
	u, err := uuid.Parse(s)
	return vmbus.GUIDFromUUID(u), err
}

// short names a GUID: a port, or its first group.
func short(g vmbus.GUID) string {
	s := g.UUID().String()
	if strings.HasSuffix(s, socketPort) {
		return "port:" + strings.TrimLeft(s[:8], "0")
	}
	return s[:8]
}
