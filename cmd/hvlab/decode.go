package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hvlab/hvlab/cmd/hvlab/internal/decode"
	"github.com/hvlab/hvlab/vmbus"
)

// decodeVerb is `hvlab decode`.
type decodeVerb struct {
	Input []string `arg:"" optional:"" help:"Hexadecimal, or the name of a file; without any, or with -, standard input."`

	As        string `placeholder:"KIND" enum:",message,slot,post,gpadl,ring" default:"" help:"What it is: message, slot, post, gpadl or ring. Guessed if left out."`
	Version   string `placeholder:"5.3" help:"VMBus version that messages are read as of (the newest)."`
	Features  string `placeholder:"0x3f" help:"Features granted from version 6.0 on, as a number (all)."`
	Direction string `placeholder:"TO" enum:",to-host,to-guest" default:"" help:"The way a message came, to-host or to-guest: it is wrong if its type goes the other way."`
	Ranges    int    `placeholder:"N" help:"Ranges in a GPADL's range list (as many as there are)."`
	Framing   string `placeholder:"KIND" enum:",pipe,plain" default:"" help:"Whether packets of a ring begin with a pipe header: pipe or plain. Guessed if left out."`
	Raw       bool   `help:"The input is bytes, even if it looks like hexadecimal."`
	Full      bool   `help:"Show long contents to their end."`
	JSON      bool   `name:"json" help:"Print one JSON document instead of a table."`
}

// Help is the long text of `hvlab decode -h`.
func (decodeVerb) Help() string {
	return `Every field with its offset, its bytes, its name in the specification, its value
and what that means. The input is a control message, a 256-byte message slot, the
input of HvCallPostMessage, a GPADL's list of ranges or the memory of one ring (its
control page and data pages), in hexadecimal as people and tools write it (spaces,
commas, 0x, comments after #, xxd, hexdump -C), or as bytes in a file.

If something makes no sense, what comes before it is explained, then the offset and
the reason are given, and the exit status is 1.

Examples:

    hvlab decode 0f000000 00000000 01000000 01000000
    hvlab decode -version 4.0 < message.hex
    hvlab decode -as ring -full ring.bin
    xxd slot.bin | hvlab decode -json | jq -r '.parts[].fields[] | .name + " " + .value'
`
}

// Run reads the input, explains it and fails if it makes no sense.
func (v *decodeVerb) Run(o output) error {
	b, err := v.read(os.Stdin)
	if err != nil {
		return err
	}
	options := decode.Options{Kind: decode.Kind(v.As), Ranges: v.Ranges, Framing: decode.Framing(v.Framing)}
	options.Direction = map[string]vmbus.Direction{"to-host": vmbus.GuestToHost, "to-guest": vmbus.HostToGuest}[v.Direction]
	if options.Negotiated, err = v.negotiated(); err != nil {
		return err
	}
	report, err := decode.Explain(b, options)
	if err != nil {
		return err
	}
	if v.JSON {
		enc := json.NewEncoder(o.out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		err = enc.Encode(report)
	} else {
		err = report.WriteText(o.out, v.Full)
	}
	if err == nil && report.Problem != nil {
		err = report.Problem
	}
	return err
}

func (v *decodeVerb) negotiated() (n vmbus.Negotiated, err error) {
	if v.Version != "" {
		if n.Version, err = vmbus.ParseVersion(v.Version); err != nil {
			return n, fmt.Errorf("-version: %w", err)
		}
		if n.Version >= vmbus.Copper {
			n.Features = vmbus.AllFeatures
		}
	}
	if v.Features != "" {
		bits, err := strconv.ParseUint(v.Features, 0, 32)
		if err != nil {
			return n, fmt.Errorf("-features wants a number such as 0x3f, not %q", v.Features)
		}
		if n.Version == 0 {
			n.Version = vmbus.Copper
		}
		if n.Version < vmbus.Copper {
			return n, fmt.Errorf("-features: version %v has none", n.Version)
		}
		n.Features = vmbus.Features(bits)
	}
	return n, nil
}

// read takes the input from the arguments, the file they name, or stdin.
func (v *decodeVerb) read(stdin io.Reader) ([]byte, error) {
	if len(v.Input) == 0 || len(v.Input) == 1 && v.Input[0] == "-" {
		return v.contents(stdin)
	}
	if len(v.Input) == 1 {
		f, err := os.Open(v.Input[0])
		if err == nil {
			defer f.Close()
			return v.contents(f)
		}
		missing := errors.Is(err, fs.ErrNotExist)
		switch {
		case missing && !v.Raw && !looksHex(v.Input[0]):
			return nil, fmt.Errorf("%s: this is neither hexadecimal nor a file that is there", v.Input[0])
		case !missing || v.Raw:
			return nil, err
		}
	}
	return decode.Bytes(strings.Join(v.Input, " "))
}

// looksHex tells a hexadecimal argument with a mistake in it from the name of a
// file that is not there.
func looksHex(s string) bool {
	return strings.Trim(strings.ToLower(s), "0123456789abcdefx ,:") == ""
}

// contents reads bytes, or text that is hexadecimal.
func (v *decodeVerb) contents(r io.Reader) ([]byte, error) {
	const maxText = 8 * decode.MaxInputBytes // a dump of so many bytes takes less
	b, err := io.ReadAll(io.LimitReader(r, maxText+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxText:
		return nil, fmt.Errorf("the input is longer than %d bytes", maxText)
	case v.Raw || !utf8.Valid(b) || strings.ContainsRune(string(b), 0):
		return b, nil
	}
	return decode.Bytes(string(b))
}
