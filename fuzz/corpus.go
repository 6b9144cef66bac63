package fuzz

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// corpusHead and corpusTail enclose an input in Go's corpus files.
const (
	corpusHead = "go test fuzz v1\n[]byte("
	corpusTail = ")\n"
)

// Corpus reads the inputs in a folder that "go test -fuzz" writes, or that
// testdata/fuzz has for a target, in the order of their names. A folder that
// does not exist has none.
func Corpus(folder string) ([][]byte, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		return nil, err
	}
	var list [][]byte
	for _, name := range names {
		b, err := readInput(name)
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

func readInput(name string) ([]byte, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	quoted, ok := strings.CutPrefix(string(text), corpusHead)
	quoted, ended := strings.CutSuffix(quoted, corpusTail)
	data, err := strconv.Unquote(quoted)
	if !ok || !ended || err != nil {
		return nil, fmt.Errorf("fuzz: %s is no input of one []byte", name)
	}
	return []byte(data), nil
}

// writeInput writes what readInput reads.
func writeInput(name string, data []byte) error {
	return os.WriteFile(name, []byte(corpusHead+strconv.Quote(string(data))+corpusTail), 0o644)
}
