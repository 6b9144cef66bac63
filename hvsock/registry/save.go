package registry

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// Save writes the registry as regedit exports it: UTF-16LE with a byte order
// mark, lines that end in CR LF, services in the order of their ids. Load, or
// regedit on a Windows host, reads it.
func (r *Registry) Save(w io.Writer) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line(header5)
	line("")
	line("[%s]", Key)
	defaults := r.defaults()
	saveText(line, valueDefaultBind, string(defaults.Bind))
	saveText(line, valueDefaultConnect, string(defaults.Connect))
	for _, s := range r.Services() {
		line("")
		line(`[%s\%s]`, Key, strings.ToUpper(s.ID.String()))
		saveText(line, valueName, s.ElementName)
		saveText(line, valueBind, string(s.Bind))
		saveText(line, valueConnect, string(s.Connect))
		if s.Disabled {
			line(`"%s"=dword:00000001`, valueDisabled)
		}
		if s.NoWildcardBinds {
			line(`"%s"=dword:00000000`, valueWildcard)
		}
	}
	line("")
	_, err := w.Write(append([]byte{0xFF, 0xFE}, encodeUTF16(b.String())...))
	return err
}

// saveText writes a string value, in hex if it has characters that would end the
// line; "" is not written.
func saveText(line func(string, ...any), name, text string) {
	switch {
	case text == "":
	case strings.ContainsFunc(text, func(c rune) bool { return c < ' ' }):
		pairs := strings.TrimSuffix(fmt.Sprintf("% x", encodeUTF16(text+"\x00")), " ")
		line(`"%s"=hex(1):%s`, name, strings.ReplaceAll(pairs, " ", ","))
	default:
		line(`"%s"="%s"`, name, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text))
	}
}

func encodeUTF16(s string) []byte {
	var b bytes.Buffer
	for _, u := range utf16.Encode([]rune(s)) {
		_ = binary.Write(&b, binary.LittleEndian, u) // a bytes.Buffer has no errors
	}
	return b.Bytes()
}
