package decode

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A HexError says where a text is no hexadecimal.
type HexError struct {
	Line   int // from 1
	Text   string
	Reason string
}

func (e *HexError) Error() string { return fmt.Sprintf("line %d: %q %s", e.Line, e.Text, e.Reason) }

// Bytes reads hexadecimal: digits in pairs, with or without spaces, commas or 0x
// between them, and comments from # to the end of the line; or the output of xxd
// and of hexdump -C, whose offsets, text and repeated lines are understood. The
// error is a *HexError, or says that there are too many bytes.
func Bytes(text string) ([]byte, error) {
	lines := strings.Split(text, "\n")
	b, err := dumpBytes(lines)
	if errors.Is(err, errNoDump) {
		b, err = plainBytes(lines)
	}
	if err == nil && len(b) > MaxInputBytes {
		err = fmt.Errorf("%d bytes are too many, the limit is %d", len(b), MaxInputBytes)
	}
	return b, err
}

// plainBytes reads digits without offsets.
func plainBytes(lines []string) ([]byte, error) {
	var out []byte
	for i, line := range lines {
		line, _, _ = strings.Cut(line, "#")
		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r,;:", r) }) {
			digits, prefixed := strings.CutPrefix(strings.ToLower(word), "0x")
			if prefixed && len(digits) == 1 { // one byte, as C and Go programs print it
				digits = "0" + digits
			}
			b, err := hex.DecodeString(digits)
			switch {
			case errors.Is(err, hex.ErrLength):
				return nil, &HexError{i + 1, word, "has an odd number of digits"}
			case err != nil || len(b) == 0:
				return nil, &HexError{i + 1, word, "is not hexadecimal"}
			}
			out = append(out, b...)
		}
	}
	return out, nil
}

// errNoDump says that a text is no dump with offsets.
var errNoDump = errors.New("no offsets")

var (
	// offset, colon, groups of digits with one space between them
	xxdLine = regexp.MustCompile(`^([0-9a-fA-F]{4,16}): ((?:[0-9a-fA-F]{2})+(?: (?:[0-9a-fA-F]{2})+)*)(?:\s{2}.*|\s*)$`)
	// offset, two spaces, bytes; the text between bars
	hexdumpLine = regexp.MustCompile(`^\s*([0-9a-fA-F]{4,16})\s{2,}([0-9a-fA-F]{2}(?:\s{1,2}[0-9a-fA-F]{2})*)\s*(?:[|>].*)?$`)
	endLine     = regexp.MustCompile(`^\s*([0-9a-fA-F]{4,16}):?\s*$`)
)

// dumpBytes reads the output of xxd or hexdump. Each line must begin where the
// one before ended, else it is errNoDump: such numbers are not offsets.
func dumpBytes(lines []string) ([]byte, error) {
	var d dump
	for _, line := range lines {
		if text := strings.TrimSpace(line); text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		if err := d.line(line); err != nil {
			return nil, err
		}
	}
	if d.rows == 0 || d.starred || d.base != 0 && d.rows == 1 {
		return nil, errNoDump
	}
	return d.out, nil
}

// A dump is the lines read so far.
type dump struct {
	out     []byte
	rows    int
	base    int // offset of the first line
	last    []byte
	starred bool // the line before said that last is repeated
	ended   bool // by a line that is only an offset
}

func (d *dump) line(line string) error {
	if strings.TrimSpace(line) == "*" && d.rows > 0 && !d.starred {
		d.starred = true
		return nil
	}
	m := xxdLine.FindStringSubmatch(line)
	if m == nil {
		m = hexdumpLine.FindStringSubmatch(line)
	}
	end := m == nil
	if end {
		m = endLine.FindStringSubmatch(line)
	}
	if m == nil || d.ended || end && d.rows == 0 {
		return errNoDump
	}
	offset, err := strconv.ParseUint(m[1], 16, 48)
	if err != nil {
		return errNoDump
	}
	if d.rows == 0 {
		d.base = int(offset)
	}
	if err := d.seek(int(offset) - d.base); err != nil {
		return err
	}
	d.ended = end
	if end {
		return nil
	}
	row, err := hex.DecodeString(strings.Join(strings.Fields(m[2]), ""))
	if err != nil {
		return errNoDump
	}
	d.out, d.last = append(d.out, row...), row
	d.rows++
	return nil
}

// seek repeats the last row up to offset, if a star allows it.
func (d *dump) seek(offset int) error {
	gap := offset - len(d.out)
	if d.starred && gap > 0 && len(d.out)+gap <= MaxInputBytes {
		again := slices.Repeat(d.last, (gap+len(d.last)-1)/len(d.last))
		d.out, gap, d.starred = append(d.out, again[:gap]...), 0, false
	}
	if gap != 0 || d.starred {
		return errNoDump
	}
	return nil
}
