package decode

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What tools print of 05 00 00 00 23 22 then 40 zero bytes then ff.
const (
	xxdText = `00000000: 0500 0000 2322 0000 0000 0000 0000 0000  ....#"..........
00000010: 0000 0000 0000 0000 0000 0000 0000 0000  ................
00000020: 0000 0000 0000 0000 0000 0000 0000 ff    ...............
`
	hexdumpText = `00000000  05 00 00 00 23 22 00 00  00 00 00 00 00 00 00 00  |....#"..........|
00000010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
00000020  00 00 00 00 00 00 00 00  00 00 00 00 00 00 ff     |...............|
0000002f
`
	// hexdump -C of 16 times 41 and 48 zero bytes
	starText = `00000000  41 41 41 41 41 41 41 41  41 41 41 41 41 41 41 41  |AAAAAAAAAAAAAAAA|
00000010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
*
00000040
`
)

func TestBytes(t *testing.T) {
	dumped := append([]byte{5, 0, 0, 0, 0x23, 0x22}, append(make([]byte, 40), 0xff)...)
	starred := append([]byte(strings.Repeat("A", 16)), make([]byte, 48)...)
	for _, c := range []struct {
		text string
		want []byte
	}{
		{"", nil},
		{"0f00", []byte{0xf, 0}},
		{"0F 00\n01", []byte{0xf, 0, 1}},
		{"0x0f, 0x0, 0x1 # the type\n02", []byte{0xf, 0, 1, 2}},
		{"0x0f000000", []byte{0xf, 0, 0, 0}}, // as written, not as a number
		{"# nothing but a comment", nil},
		{"05000000  02 00", []byte{5, 0, 0, 0, 2, 0}}, // no offset: nothing begins there
		{"0000  05 00\n0002  07", []byte{5, 0, 7}},
		{"0000  05 00\n0003  07", []byte{0, 0, 5, 0, 0, 3, 7}}, // not offsets: a byte would be missing
		{xxdText, dumped},
		{hexdumpText, dumped},
		{starText, starred},
		{strings.ReplaceAll(starText, "000000", "000010"), starred}, // hexdump -s
	} {
		got, err := Bytes(c.text)
		require.NoError(t, err, c.text)
		require.Equal(t, c.want, got, c.text)
	}
}

func TestBytesErrors(t *testing.T) {
	for _, c := range []struct {
		text string
		line int
		word string
	}{
		{"0f 00\n0z", 2, "0z"},
		{"0f0", 1, "0f0"},
		{"0x", 1, "0x"},
		{"hello", 1, "hello"},
		{strings.Replace(xxdText, "2322", "23zz", 1), 1, "23zz"},
	} {
		_, err := Bytes(c.text)
		var e *HexError
		require.ErrorAs(t, err, &e, c.text)
		require.Equal(t, c.line, e.Line)
		require.Equal(t, c.word, e.Text)
		require.Contains(t, err.Error(), fmt.Sprintf("line %d: %q", c.line, c.word))
	}
	_, err := Bytes(strings.Repeat("00", MaxInputBytes+1))
	require.Error(t, err)
	_, err = Bytes("00000000  00 00\n*\nffffffffff\n")
	require.Error(t, err, "an offset alone must not allocate")
}

// FuzzBytes: any text is read or refused, and any bytes come back from every form
// that tools write them in.
func FuzzBytes(f *testing.F) {
	for _, s := range []string{"", "0f 00", xxdText, hexdumpText, starText} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := Bytes(s); err != nil {
			require.NotEmpty(t, err.Error())
		}
		if len(s) > 1<<12 {
			return
		}
		for _, text := range []string{hex.EncodeToString([]byte(s)), spaced([]byte(s)), hex.Dump([]byte(s)), xxd([]byte(s))} {
			got, err := Bytes(text)
			require.NoError(t, err, text)
			require.Equal(t, s, string(got), text)
		}
	})
}

// xxd prints as xxd does.
func xxd(b []byte) string {
	var s strings.Builder
	for at := 0; at < len(b); at += 16 {
		row := b[at:min(at+16, len(b))]
		digits := ""
		for i := 0; i < len(row); i += 2 {
			digits += hex.EncodeToString(row[i:min(i+2, len(row))]) + " "
		}
		fmt.Fprintf(&s, "%08x: %-39s  %s\n", at, strings.TrimRight(digits, " "), printable(row))
	}
	return s.String()
}
