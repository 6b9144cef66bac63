package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/hvlab/hvlab/internal/putback"
)

// comments reads what each switch puts back from the file that declares them, by
// the name of the constant.
func comments(file string) (map[string]string, error) {
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	texts := map[string]string{}
	ast.Inspect(tree, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && v.Comment != nil {
			texts[v.Names[0].Name] = strings.TrimSpace(v.Comment.Text())
		}
		return true
	})
	return texts, nil
}

// report prints the table and reports whether every fault was caught.
func report(rows []row, results []result, texts map[string]string, verbose bool) bool {
	totals := map[string]int{}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROW\tOUTCOME\tWHAT IS PUT BACK\tHOW IT SHOWS")
	for i, r := range rows {
		totals[results[i].verdict]++
		text := texts[constant(r.fault)]
		fmt.Fprintf(w, "%v\t%s\t%s\t%s\n", r.fault, results[i].verdict, text, results[i].detail)
	}
	_ = w.Flush() // to standard output: nobody to tell
	for i, r := range rows {
		if v := results[i].verdict; v == missed || v == broken || v == caught && verbose {
			fmt.Printf("\n== %v %s: %s\n%s\n", r.fault, v, results[i].detail, results[i].output)
		}
	}
	for _, r := range rows {
		if r.near != "" {
			fmt.Printf("%v is shown by its like: %s\n", r.fault, r.near)
		}
	}
	fmt.Printf("%d rows: %d caught, %d missed, %d broken without a switch, %d not applicable\n",
		len(rows), totals[caught], totals[missed], totals[broken], totals[notApplicable])
	return totals[missed]+totals[broken] == 0
}

// signs are the lines in which a failing test says what it saw.
var signs = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^panic: (.*?)(?: \[recovered.*)?$`),
	regexp.MustCompile(`(?m)^(fatal error: .*)$`),
	regexp.MustCompile(`(?m)^\s*Messages:\s*(\S.*)$`),
	regexp.MustCompile(`(?s)output didn't match expected:.*?\n\s*([-+][a-z][^\n]*)`), // of a scenario
	regexp.MustCompile(`(?s)\n\s*found:\s*\n\s*(\S[^\n]*)`),
}

// weakSigns are for tests that say nothing better.
var weakSigns = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^\s*Error:\s*(?:Received unexpected error:\s*)?(\S.*)$`),
	regexp.MustCompile(`(?m)^\s*\S+_test\.go:\d+: (\S.*)$`),
}

// symptom is the first line of a failing test that says what happened.
func symptom(output string) string {
	const width = 100
	for _, list := range [][]*regexp.Regexp{signs, weakSigns} {
		at, text := len(output), ""
		for _, s := range list {
			if m := s.FindStringSubmatchIndex(output); m != nil && m[0] < at {
				at, text = m[0], strings.TrimSpace(output[m[2]:m[3]])
			}
		}
		if text != "" {
			return text[:min(len(text), width)]
		}
	}
	return "it fails"
}

// constant is the name of a Fault in package putback.
func constant(f putback.Fault) string { return strings.ReplaceAll(f.String(), "-", "") }
