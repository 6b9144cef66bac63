// Command libfuzzer builds the targets of package fuzz for libFuzzer, and for
// every engine that takes its targets (Honggfuzz, AFL++ with its driver).
//
//	go run ./internal/libfuzzer -o OUT                       # all targets
//	go run ./internal/libfuzzer -o OUT -run '^HostMessages$'
//	clang++ -fsanitize=fuzzer OUT/FuzzHostMessages.a -o FuzzHostMessages
//
// For each target it writes FuzzNAME.a, an archive that exports
// LLVMFuzzerTestOneInput and is instrumented by the Go compiler for libFuzzer,
// and FuzzNAME_seed_corpus.zip with its seeds and its corpus. Building needs a C
// compiler, since a C program calls the target; hvlab itself stays without cgo,
// and the package that is built is written below .cache.
//
// .clusterfuzzlite/build.sh is made of it, as OSS-Fuzz and ClusterFuzzLite run it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/hvlab/hvlab/fuzz"
)

func main() {
	out := flag.String("o", "", "folder for the archives and seeds")
	run := flag.String("run", "", "only targets whose name matches this regular expression")
	flag.Parse()
	if err := build(context.Background(), *out, *run); err != nil {
		fmt.Fprintln(os.Stderr, "libfuzzer:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, out, run string) error {
	if out == "" {
		return errors.New("-o is missing: a folder for what is built")
	}
	match, err := regexp.Compile(run)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	n := 0
	for _, t := range fuzz.Targets() {
		if !match.MatchString(t.Name) {
			continue
		}
		n++
		if err := archive(ctx, t.Name, filepath.Join(out, "Fuzz"+t.Name+".a")); err != nil {
			return err
		}
		if err := seeds(t, filepath.Join(out, "Fuzz"+t.Name+"_seed_corpus.zip")); err != nil {
			return err
		}
		fmt.Println("Fuzz" + t.Name)
	}
	if n == 0 {
		return fmt.Errorf("no target matches -run %q", run)
	}
	return nil
}

// program is the package that libFuzzer's main function calls.
const program = `package main

// #include <stddef.h>
// #include <stdint.h>
import "C"

import (
	"unsafe"

	"github.com/hvlab/hvlab/fuzz"
)

//export LLVMFuzzerTestOneInput
func LLVMFuzzerTestOneInput(data *C.uint8_t, size C.size_t) C.int {
	if err := fuzz.%s(C.GoBytes(unsafe.Pointer(data), C.int(size))); err != nil {
		panic(err)
	}
	return 0
}

func main() {}
`

// notInstrumented are packages that run before, or below, the fuzzer's own code.
var notInstrumented = []string{"runtime/cgo", "runtime/pprof", "runtime/race", "syscall"}

// archive builds one target. Its package is written below .cache, which belongs
// to this module and to no pattern such as ./..., so nobody else meets it.
func archive(ctx context.Context, name, file string) error {
	dir := filepath.Join(".cache", "libfuzzer", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), fmt.Appendf(nil, program, name), 0o644); err != nil {
		return err
	}
	args := []string{"build", "-buildmode=c-archive", "-trimpath", "-tags=libfuzzer", "-gcflags=all=-d=libfuzzer"}
	for _, p := range notInstrumented {
		args = append(args, "-gcflags="+p+"=-d=libfuzzer=0")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", file, "./"+filepath.ToSlash(dir))...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building %s: %w", name, err)
	}
	return nil
}
