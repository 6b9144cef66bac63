package registry

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Key is where Windows keeps the services, a subkey each.
const Key = `HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Virtualization\GuestCommunicationServices`

// Names of values. ElementName is Windows' own; the others are HCS's.
const (
	valueName           = "ElementName"
	valueDisabled       = "Disabled"
	valueBind           = "BindSecurityDescriptor"
	valueConnect        = "ConnectSecurityDescriptor"
	valueWildcard       = "AllowWildcardBinds"
	valueDefaultBind    = "DefaultBindSecurityDescriptor"
	valueDefaultConnect = "DefaultConnectSecurityDescriptor"
)

// The first lines of a .reg file: Windows 2000 and later, and before.
const (
	header5 = "Windows Registry Editor Version 5.00"
	header4 = "REGEDIT4"
)

// Load reads a .reg file: UTF-16LE with its byte order mark, as regedit exports,
// or UTF-8. Other keys of the file are skipped, and so are other values of a
// service. What the file deletes ("[-...]" or "name=-") is deleted. Errors are
// *SyntaxError, or the reader's.
func Load(r io.Reader) (*Registry, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxFileBytes {
		return nil, &SyntaxError{0, fmt.Sprintf("the file is larger than %d bytes", MaxFileBytes)}
	}
	text, reason := decodeFile(b)
	if reason != "" {
		return nil, &SyntaxError{0, reason}
	}
	l := loader{into: New()}
	for text != "" && err == nil {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		l.next++
		l.line = l.next
		line = strings.TrimSuffix(line, "\r")
		for continues(line) && text != "" && len(line) <= MaxLineBytes {
			var more string
			more, text, _ = strings.Cut(text, "\n")
			l.next++
			line = strings.TrimSuffix(line, `\`) + strings.TrimSpace(more)
		}
		err = l.take(strings.TrimSpace(line))
	}
	if err == nil && !l.begun {
		err = &SyntaxError{1, "this is no .reg file: want " + header5}
	}
	if err == nil {
		err = l.end()
	}
	if err != nil {
		return nil, err
	}
	return l.into, nil
}

// continues reports whether a value goes on in the next line: only hex data does.
func continues(line string) bool {
	return strings.HasSuffix(line, `\`) && strings.HasPrefix(line, `"`) && strings.Contains(line, "=hex")
}

// decodeFile returns the file as UTF-8; reason says why that is not possible.
func decodeFile(b []byte) (text, reason string) {
	if len(b) >= 2 && b[0] == 0xFF && b[1] == 0xFE {
		if b = b[2:]; len(b)%2 != 0 {
			return "", "the UTF-16 text has half a character at its end"
		}
		return decodeUTF16(b), ""
	}
	text = strings.TrimPrefix(string(b), "\uFEFF")
	if !utf8.ValidString(text) {
		return "", "the file is neither UTF-16LE with a byte order mark nor UTF-8; export it again with regedit"
	}
	return text, ""
}

func decodeUTF16(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

// A loader reads line after line.
type loader struct {
	into  *Registry
	line  int  // where the line at hand begins
	next  int  // lines read so far
	begun bool // the header was there

	atKey         bool // in the services' key itself
	service       *Service
	serviceLine   int
	bind, connect Descriptor
}

// fault is a *SyntaxError about the line at hand.
func (l *loader) fault(format string, args ...any) error {
	return &SyntaxError{l.line, fmt.Sprintf(format, args...)}
}

// take reads one line. Its errors are *SyntaxError.
func (l *loader) take(line string) error {
	switch {
	case len(line) > MaxLineBytes:
		return l.fault("the line is longer than %d bytes", MaxLineBytes)
	case line == "" || line[0] == ';':
		return nil
	case !l.begun:
		if line != header5 && line != header4 {
			return l.fault("this is no .reg file: want %s", header5)
		}
		l.begun = true
		return nil
	case line[0] == '[':
		if line[len(line)-1] != ']' {
			return l.fault("the key has no closing bracket")
		}
		return l.key(line[1 : len(line)-1])
	}
	name, value, reason := splitValue(line)
	if reason == "" {
		reason = l.value(name, value)
	}
	if reason != "" {
		return l.fault("%s", reason)
	}
	return nil
}

// key begins a new key, or deletes one.
func (l *loader) key(path string) error {
	if err := l.end(); err != nil {
		return err
	}
	l.atKey = false
	path, deletes := strings.CutPrefix(path, "-")
	if strings.EqualFold(path, Key) {
		if l.atKey = !deletes; deletes {
			clear(l.into.services)
		}
		return nil
	}
	if len(path) <= len(Key)+1 || !strings.EqualFold(path[:len(Key)+1], Key+`\`) {
		return nil
	}
	name := path[len(Key)+1:]
	if strings.Contains(name, `\`) {
		return nil // below a service Windows keeps nothing we know of
	}
	id, err := uuid.Parse(name)
	if err != nil || len(name) != 36 && len(name) != 38 {
		return l.fault("the service's key %q is no GUID", name)
	}
	if deletes {
		delete(l.into.services, id)
		return nil
	}
	s, known := l.into.services[id]
	if !known {
		s = Service{ID: id}
	}
	l.service, l.serviceLine = &s, l.line
	return nil
}

// end registers the service whose key ends here. The error is a *SyntaxError.
func (l *loader) end() error {
	if l.service == nil {
		return nil
	}
	s := *l.service
	l.service = nil
	if err := l.into.Register(s); err != nil {
		return &SyntaxError{l.serviceLine, err.Error()}
	}
	return nil
}

// value takes a value of the current key.
func (l *loader) value(name string, value data) (reason string) {
	is := func(known string) bool { return strings.EqualFold(name, known) }
	switch {
	case l.atKey && is(valueDefaultBind):
		return l.descriptor(name, value, &l.bind)
	case l.atKey && is(valueDefaultConnect):
		return l.descriptor(name, value, &l.connect)
	case l.service == nil:
		return ""
	case is(valueName):
		return value.text(name, &l.service.ElementName)
	case is(valueBind):
		return l.descriptor(name, value, &l.service.Bind)
	case is(valueConnect):
		return l.descriptor(name, value, &l.service.Connect)
	case is(valueDisabled):
		return value.number(name, &l.service.Disabled)
	case is(valueWildcard):
		var allowed bool
		reason = value.number(name, &allowed)
		l.service.NoWildcardBinds = !allowed && value.kind != deleted
	}
	return reason
}

// descriptor takes a security descriptor.
func (l *loader) descriptor(name string, value data, into *Descriptor) (reason string) {
	if reason = value.text(name, (*string)(into)); reason != "" {
		return reason
	}
	if _, _, reason = into.parse(); reason != "" {
		return reason
	}
	l.into.bind, l.into.connect = l.bind, l.connect
	return ""
}

// A kind is the type of a value, as far as it matters here.
type kind uint8

const (
	other kind = iota
	deleted
	str
	dword
)

// data is the right-hand side of a value.
type data struct {
	kind kind
	s    string
	n    uint32
}

func (d data) text(name string, into *string) (reason string) {
	if d.kind != str && d.kind != deleted {
		return name + " is no string (REG_SZ)"
	}
	*into = d.s
	return ""
}

func (d data) number(name string, into *bool) (reason string) {
	if d.kind != dword && d.kind != deleted {
		return name + " is no number (REG_DWORD)"
	}
	*into = d.n != 0
	return ""
}

// splitValue reads a line of the form "name"=data or @=data.
func splitValue(line string) (name string, value data, reason string) {
	rest := line
	switch {
	case strings.HasPrefix(line, "@"):
		rest = line[1:]
	case strings.HasPrefix(line, `"`):
		var ok bool
		if name, rest, ok = quoted(line); !ok {
			return "", data{}, "the name of the value has no closing quote"
		}
	default:
		return "", data{}, `neither a key, nor a value, nor a comment: want [key] or "name"=data`
	}
	rest, ok := strings.CutPrefix(strings.TrimSpace(rest), "=")
	if !ok {
		return "", data{}, "the value has no equals sign"
	}
	value, reason = parseData(strings.TrimSpace(rest))
	return name, value, reason
}

// quoted reads a string in quotes, in which a backslash protects itself and the
// quote, and returns what is behind it.
func quoted(text string) (s, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return b.String(), text[i+1:], true
		case text[i] == '\\' && i+1 < len(text):
			i++
		}
		b.WriteByte(text[i])
	}
	return "", "", false
}

// parseData reads what is behind the equals sign.
func parseData(text string) (data, string) {
	switch {
	case text == "-":
		return data{kind: deleted}, ""
	case strings.HasPrefix(text, `"`):
		s, rest, ok := quoted(text)
		if !ok || strings.TrimSpace(rest) != "" {
			return data{}, "the string has no closing quote, or something behind it"
		}
		return data{kind: str, s: s}, ""
	case strings.HasPrefix(text, "dword:"):
		n, err := strconv.ParseUint(text[len("dword:"):], 16, 32)
		if err != nil {
			return data{}, "the number is not dword: and up to eight hex digits"
		}
		return data{kind: dword, n: uint32(n)}, ""
	case strings.HasPrefix(text, "hex"):
		return parseHex(text[len("hex"):])
	}
	return data{}, `the data is neither "string", nor dword:, nor hex:, nor -`
}

// parseHex reads ":aa,bb" or "(type):aa,bb". Type 1 is a string in UTF-16LE with
// a zero behind it.
func parseHex(text string) (data, string) {
	form, list, ok := strings.Cut(text, ":")
	if !ok {
		return data{}, "the hex data has no colon"
	}
	b, err := hex.DecodeString(strings.ReplaceAll(strings.ReplaceAll(list, ",", ""), " ", ""))
	if err != nil {
		return data{}, "the hex data is not pairs of hex digits with commas between"
	}
	switch {
	case form == "(1)" && len(b)%2 == 0:
		return data{kind: str, s: strings.TrimSuffix(decodeUTF16(b), "\x00")}, ""
	case form == "(4)" && len(b) == 4:
		return data{kind: dword, n: binary.LittleEndian.Uint32(b)}, ""
	}
	return data{kind: other}, ""
}
