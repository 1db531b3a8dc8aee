package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// verdict lists what did not pass and ends in the one line that counts. In a strict run a skipped test is a failure.
// It reports whether all is well.
func verdict(out io.Writer, t tally, steps []string, strict bool, took time.Duration) bool {
	fmt.Fprintln(out)
	for _, f := range t.failed {
		fmt.Fprintf(out, "FAILED   %s\n", f)
	}
	for _, f := range t.skipped {
		fmt.Fprintf(out, "SKIPPED  %s\n", f)
	}
	if len(t.skipped) > 0 {
		if strict {
			fmt.Fprintln(out, "As root on Linux, and in CI, nothing may be skipped: each of these is a failure.")
		} else {
			fmt.Fprintln(out, "Run as root on Linux for the tests that need a real node; there and in CI a skip is a failure.")
		}
	}
	line := fmt.Sprintf("%d tests passed, %d failed, %d skipped in %s", t.passed, len(t.failed), len(t.skipped), took.Round(time.Second))
	if len(steps) > 0 {
		line += "; failed before them: " + strings.Join(steps, ", ")
	}
	fmt.Fprintln(out, line)
	return len(steps) == 0 && len(t.failed) == 0 && t.passed > 0 && (!strict || len(t.skipped) == 0)
}
