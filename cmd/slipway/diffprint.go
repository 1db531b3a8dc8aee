package main

import (
	"fmt"
	"io"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
)

// printDiffs writes what differs, and a line on each Application.
func printDiffs(w io.Writer, t terminal, diffs []applicationDiff) {
	for _, diff := range diffs {
		if diff.Error != "" || len(diff.Differences) == 0 {
			continue
		}
		fmt.Fprintf(w, "%s\n", diff.title())
		for _, d := range diff.Differences {
			printDifference(w, t, d)
		}
		if diff.Held != "" {
			fmt.Fprintf(w, "  %s\n", t.paint(bad, "held: "+diff.Held))
		}
		fmt.Fprintln(w)
	}
	for _, diff := range diffs {
		with := doubt
		switch {
		case diff.Error != "" || diff.count("refuse") > 0 || diff.Held != "":
			with = bad
		case !diff.differs():
			with = good
		}
		text := diff.summary()
		if diff.Held != "" {
			text += "; held"
		}
		fmt.Fprintf(w, "%s: %s\n", diff.title(), t.paint(with, printable(text)))
	}
	if len(diffs) == 0 {
		fmt.Fprintln(w, "no Application is touched")
	}
}

// mark is the sign of a verb and its colour.
func mark(verb string) (string, tint) {
	switch verb {
	case "create":
		return "+", good
	case "change":
		return "~", doubt
	case "delete":
		return "-", bad
	case "refuse":
		return "!", bad
	}
	return "=", faint
}

func printDifference(w io.Writer, t terminal, d wire.Difference) {
	sign, with := mark(d.Verb)
	line := sign + " " + d.Object
	if d.Note != "" {
		line += " (" + d.Note + ")"
	}
	fmt.Fprintf(w, "  %s\n", t.paint(with, printable(line)))
	if d.Error != "" {
		fmt.Fprintf(w, "      %s\n", printable("the API server would refuse it: "+d.Error))
	}
	for _, field := range d.Fields {
		fmt.Fprintf(w, "      %s\n", printable(field))
	}
}
