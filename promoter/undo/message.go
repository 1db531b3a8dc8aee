package undo

import (
	"fmt"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
)

// maxVerdict bounds the verdict in the trailer, in bytes; the samples stand in the message.
const maxVerdict = 300

// Message is that of the revert commit: what, why, the samples, and the trailers.
func Message(f Facts, e Evidence) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Revert %s in %s to %s: %s\n\n", f.App, f.Environment, f.Healthy.Short(), oneLine(e.Verdict.Reason))
	fmt.Fprintf(&b, "%s failed in cluster %s: %s\n", f.Failed.Short(), f.Cluster, oneLine(e.Verdict.Message))
	fmt.Fprintf(&b, "%s goes back to what it was at %s, which was the last to be healthy.\n", f.Path, f.Healthy)
	if e.Why != "" {
		fmt.Fprintf(&b, "This waits for a person: %s\n", oneLine(e.Why))
	}
	if len(e.Verdict.Samples) > 0 {
		b.WriteString("\nSamples:\n")
	}
	for _, s := range e.Verdict.Samples {
		fmt.Fprintf(&b, "  %s  %s: %s\n", s.At.UTC().Format(time.RFC3339), oneLine(s.Check), oneLine(s.Value))
	}
	writeEvidence(&b, e.Verdict.Evidence)
	block := trailer.Block{Reverts: []gitsource.ObjectID{f.Failed}, Verdict: verdictLine(e), Evidence: recordOf(f, e).String()}
	for _, image := range e.Restored {
		block.Changes = append(block.Changes, trailer.Change{App: f.App, Environment: f.Environment, Image: image, Trace: e.Trace})
	}
	return trailer.Append(b.String(), block)
}

func verdictLine(e Evidence) string {
	line := oneLine(e.Verdict.Outcome + " " + e.Verdict.Reason + ": " + e.Verdict.Message)
	if len(line) > maxVerdict {
		line = strings.TrimSpace(strings.ToValidUTF8(line[:maxVerdict], ""))
	}
	return line
}

// oneLine keeps foreign text from starting lines, and so trailers, of its own.
func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " ")
}
