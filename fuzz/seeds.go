package fuzz

import (
	"bufio"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/hvlab/hvlab/vmbus"
)

//go:embed testdata/faults.txt
var faultsText string

// A FaultLine is one line of testdata/faults.txt, the seeds of the fault
// catalogue; the file says what the layers and parts are.
type FaultLine struct {
	ID      string // S01 to S24
	Layer   string // host, guest, ring, pipe, word, answer
	Setup   string // first, 6.0, or "" for a connection at 5.3
	Meaning string
	Parts   [][]byte
}

// FaultLines returns the lines of one layer, or all of them for "".
func FaultLines(layer string) []FaultLine {
	var lines []FaultLine
	for text := range strings.Lines(faultsText) {
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		line, err := parseFaultLine(text)
		if err != nil {
			panic(err) // the file is part of this package, and a test reads it
		}
		if layer == "" || line.Layer == layer {
			lines = append(lines, line)
		}
	}
	return lines
}

// layerOf is the layer that receives messages of a direction.
func layerOf(dir vmbus.Direction) string {
	if dir == vmbus.GuestToHost {
		return "host"
	}
	return "guest"
}

func parseFaultLine(text string) (FaultLine, error) {
	data, meaning, ok := strings.Cut(text, "#")
	words := strings.Fields(data)
	if !ok || len(words) < 3 {
		return FaultLine{}, fmt.Errorf("fuzz: %q: want: id layer [@version] part ; part # meaning", text)
	}
	line := FaultLine{ID: words[0], Layer: words[1], Meaning: strings.TrimSpace(meaning)}
	words = words[2:]
	if setup, ok := strings.CutPrefix(words[0], "@"); ok {
		line.Setup = setup
		words = words[1:]
	}
	var part []byte
	for _, word := range words {
		if word == ";" {
			line.Parts = append(line.Parts, part)
			part = nil
			continue
		}
		var err error
		if part, err = appendWord(part, word); err != nil {
			return FaultLine{}, fmt.Errorf("fuzz: %q: %w", text, err)
		}
	}
	line.Parts = append(line.Parts, part)
	return line, nil
}

// appendWord appends what one word of a line stands for: "00ff", "16*00" or
// "u64:0x100..0x103".
func appendWord(dst []byte, word string) ([]byte, error) {
	if count, b, ok := strings.Cut(word, "*"); ok {
		n, err := strconv.Atoi(count)
		if err != nil || b != "00" {
			return nil, fmt.Errorf("%q is not N*00", word)
		}
		return append(dst, make([]byte, n)...), nil
	}
	if bounds, ok := strings.CutPrefix(word, "u64:"); ok {
		var from, to uint64
		if _, err := fmt.Sscanf(bounds, "0x%x..0x%x", &from, &to); err != nil {
			return nil, fmt.Errorf("%q: %w", word, err)
		}
		for v := from; v <= to; v++ {
			dst = seed(dst).u64(v)
		}
		return dst, nil
	}
	b, err := hex.DecodeString(word)
	return append(dst, b...), err
}

// A recorded message is one that the vectors spell out, or that a real kernel
// and our host exchanged.
type recorded struct {
	dir        vmbus.Direction
	negotiated vmbus.Negotiated
	bytes      []byte
}

// recordedMessages reads the vectors and the recorded conversations below
// testdata, the latter in their order. A nil folder has none.
func recordedMessages(testdata fs.FS) ([]recorded, error) {
	if testdata == nil {
		return nil, nil
	}
	list, err := controlVectors(testdata)
	if err != nil {
		return nil, err
	}
	all, err := conversations(testdata)
	for _, c := range all {
		list = append(list, c...)
	}
	return list, err
}

func controlVectors(testdata fs.FS) ([]recorded, error) {
	text, err := fs.ReadFile(testdata, "vectors-control.json")
	if err != nil {
		return nil, err
	}
	var vectors []struct{ Version, Direction, Hex string }
	if err := json.Unmarshal(text, &vectors); err != nil {
		return nil, err
	}
	var list []recorded
	for _, v := range vectors {
		m := recorded{dir: vmbus.HostToGuest, negotiated: vmbus.Negotiated{Version: vmbus.V1, Features: vmbus.AllFeatures}}
		if strings.HasPrefix(v.Direction, "guest") {
			m.dir = vmbus.GuestToHost
		}
		if v.Version != "any" {
			if m.negotiated.Version, err = vmbus.ParseVersion(v.Version); err != nil {
				return nil, err
			}
		}
		if m.bytes, err = hex.DecodeString(v.Hex); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// conversations returns what real kernels and our host said to each other, one
// list of messages for each recording below testdata/observed.
func conversations(testdata fs.FS) ([][]recorded, error) {
	if testdata == nil {
		return nil, nil
	}
	names, err := fs.Glob(testdata, "observed/*.jsonl")
	if err != nil {
		return nil, err
	}
	var all [][]recorded
	for _, name := range names {
		c, err := conversation(testdata, name)
		if err != nil {
			return nil, fmt.Errorf("fuzz: %s: %w", name, err)
		}
		all = append(all, c)
	}
	return all, nil
}

func conversation(testdata fs.FS, name string) ([]recorded, error) {
	text := strings.TrimSuffix(path.Base(name), ".jsonl")
	version, err := vmbus.ParseVersion(text[strings.LastIndexByte(text, '-')+1:])
	if err != nil {
		return nil, err
	}
	file, err := testdata.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var list []recorded
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var event struct{ Dir, Raw string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, err
		}
		m := recorded{negotiated: vmbus.Negotiated{Version: version}}
		switch event.Dir {
		case vmbus.GuestToHost.String():
			m.dir = vmbus.GuestToHost
		case vmbus.HostToGuest.String():
			m.dir = vmbus.HostToGuest
		default: // the head of the file
			continue
		}
		if m.bytes, err = hex.DecodeString(event.Raw); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// ringVectors are the data areas that the ring vectors spell out, with their
// place in the ring.
func ringVectors(testdata fs.FS) (list []ringVector, err error) {
	if testdata == nil {
		return nil, nil
	}
	text, err := fs.ReadFile(testdata, "vectors-ring.json")
	if err != nil {
		return nil, err
	}
	var vectors []struct {
		Steps []struct {
			Expect struct {
				Data []struct {
					Offset int
					Hex    string
				}
			}
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		return nil, err
	}
	for _, v := range vectors {
		for _, s := range v.Steps {
			for _, d := range s.Expect.Data {
				b, err := hex.DecodeString(d.Hex)
				if err != nil {
					return nil, err
				}
				list = append(list, ringVector{d.Offset, b})
			}
		}
	}
	return list, nil
}

type ringVector struct {
	offset int // in the data area, in bytes
	data   []byte
}
