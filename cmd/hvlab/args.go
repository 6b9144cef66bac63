package main

import (
	"strings"

	"github.com/alecthomas/kong"
)

// doubleDashes rewrites flags that are spelled as Go programs spell them, with
// one dash ("-ring-pages 6", "-json"), to the two dashes that kong wants.
// A value is joined to its flag, so that "-ring-pages -1" is a wrong number of
// pages and not a bundle of flags. Everything after "--" is left alone.
func doubleDashes(args []string, root *kong.Node) []string {
	flags := longFlags(root, map[string]*kong.Flag{})
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...)
		}
		name, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		flag := flags[name]
		dashes := len(arg) - len(strings.TrimLeft(arg, "-"))
		if flag == nil || dashes == 0 || dashes > 2 {
			out = append(out, arg)
			continue
		}
		arg = "--" + arg[dashes:]
		if !hasValue && !flag.IsBool() && i+1 < len(args) && args[i+1] != "--" {
			i++
			arg += "=" + args[i]
		}
		out = append(out, arg)
	}
	return out
}

// longFlags collects the flags of a command line with more than one letter.
func longFlags(n *kong.Node, into map[string]*kong.Flag) map[string]*kong.Flag {
	for _, f := range n.Flags {
		if len(f.Name) > 1 {
			into[f.Name] = f
		}
	}
	for _, child := range n.Children {
		longFlags(child, into)
	}
	return into
}
