package main

import (
	"fmt"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
)

// maxComment is how long a comment gets, in bytes: hosts refuse bodies of more than 65,536 characters.
const maxComment = 60_000

// maxCommentLine bounds one line of it.
const maxCommentLine = 1000

// diffComment is what a pull request says of one cluster, in GitHub flavoured Markdown. It is made of what a Differ has masked.
// What others wrote stands in one block of code that nothing in it can end, so it pings nobody and closes nothing. What is
// too long is cut between lines, at the end: the summary comes first.
func diffComment(cluster string, head gitsource.ObjectID, diffs []applicationDiff) string {
	var summary, details []string
	for _, diff := range diffs {
		line := diff.Application + ": " + diff.summary()
		if diff.Held != "" {
			line += "; held: " + diff.Held
		}
		summary = append(summary, line)
		if len(diff.Differences) == 0 {
			continue
		}
		details = append(details, "", "# "+diff.Application)
		for _, d := range diff.Differences {
			sign, _ := mark(d.Verb)
			line := sign + " " + d.Object
			if d.Note != "" {
				line += " (" + d.Note + ")"
			}
			details = append(details, line)
			if d.Error != "" {
				details = append(details, "      the API server would refuse it: "+d.Error)
			}
			for _, field := range d.Fields {
				details = append(details, "      "+field)
			}
		}
	}
	if len(summary) == 0 {
		summary = []string{"no Application is touched"}
	}
	lines := make([]string, 0, len(summary)+len(details))
	fence := "```"
	for _, line := range append(summary, details...) {
		line = printable(strings.NewReplacer("\n", " ", "\x1b", "").Replace(line))
		if len(line) > maxCommentLine {
			line = strings.ToValidUTF8(line[:maxCommentLine], "") + "..."
		}
		for strings.Contains(line, fence) {
			fence += "`"
		}
		lines = append(lines, line)
	}
	title := "### What merging this changes"
	if cluster != "" {
		title += " in " + strings.Map(wordOnly, cluster)
	}
	return fmt.Sprintf("%s\n\nAt %s, by a dry run; values of Secrets are masked.\n\n%sdiff\n%s\n%s\n", title, head.Short(), fence, bounded(lines), fence)
}

// bounded joins as many lines as a comment takes.
func bounded(lines []string) string {
	const rest = 2*maxCommentLine + 500 // for what stands around them: a fence is longer than what is in a line
	size := 0
	for i, line := range lines {
		if size += len(line) + 1; size > maxComment-rest {
			return strings.Join(append(lines[:i:i], fmt.Sprintf("# and %d more lines: slipway diff --ref shows them", len(lines)-i)), "\n")
		}
	}
	return strings.Join(lines, "\n")
}

// wordOnly keeps of a name what has no meaning in Markdown.
func wordOnly(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
		return r
	}
	return '-'
}
