package main

import (
	"archive/zip"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hvlab/hvlab/fuzz"
)

// seeds writes the target's seeds and its corpus as a zip file with one entry
// for each input, which is what OSS-Fuzz takes.
func seeds(t fuzz.Target, file string) (err error) {
	inputs, err := t.Seeds(os.DirFS("testdata"))
	if err != nil {
		return fmt.Errorf("seeds of %s: %w", t.Name, err)
	}
	corpus, err := fuzz.Corpus(filepath.Join("fuzz", "testdata", "fuzz", "Fuzz"+t.Name))
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	z := zip.NewWriter(out)
	for i, b := range append(inputs, corpus...) {
		w, err := z.Create(fmt.Sprintf("%04d", i))
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return z.Close()
}
