// Package trailer reads and writes the block of trailers at the end of a commit message.
//
// Trailers are hints for people and for trace: a squash merge loses them, and
// anybody may type them. Only Slipway-Irreversible changes what is done, and it
// only ever makes Slipway more careful. The format is that of
// git-interpret-trailers(1).
package trailer

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
)

// The keys that Slipway writes.
const (
	KeyChange       = "Slipway-Change"
	KeyReverts      = "Slipway-Reverts"
	KeyVerdict      = "Slipway-Verdict"
	KeyIrreversible = "Slipway-Irreversible"
	KeyEvidence     = "Slipway-Evidence"
)

// Change is one image that the commit puts into an Environment. Empty fields are left out.
type Change struct {
	App         string
	Environment string
	Image       string // NAME@sha256:...
	Source      string // URL@COMMIT that it was built from
	Run         string // that built it
	Trace       string // leads from the source commit to the revert
}

// Block is the trailers of one message.
type Block struct {
	Changes []Change
	Reverts []gitsource.ObjectID
	// Verdict is one line; line breaks become spaces.
	Verdict string
	// Evidence for the Verdict is one line of JSON; package promoter/undo says what is in it.
	Evidence string
	// Irreversible commits are never reverted automatically.
	Irreversible bool
	// Other are the lines that are not Slipway's, such as Signed-off-by, in order.
	Other []string
}

// keyed wants a value: "Samples:" above a list is a headline.
var keyed = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9-]*)[ \t]*:[ \t]*(\S.*)$`)

// Parse returns what the message's last paragraph says, if all of it is trailers.
// What is not well-formed is ignored: a commit message is never a reason to stop.
//
// Slipway-Irreversible counts on a line of its own anywhere, because squash merges
// put trailers into the middle, and missing this one would hurt.
func Parse(message string) Block {
	var b Block
	for line := range strings.Lines(message) {
		if key, value, ok := cut(strings.TrimSpace(line)); ok && strings.EqualFold(key, KeyIrreversible) && strings.EqualFold(value, "true") {
			b.Irreversible = true
		}
	}
	_, lines := split(message)
	for _, line := range lines {
		b.add(line)
	}
	return b
}

func (b *Block) add(line string) {
	key, value, _ := cut(line)
	switch {
	case strings.EqualFold(key, KeyIrreversible): // seen by Parse
	case strings.EqualFold(key, KeyChange):
		if change := parseChange(value); change != (Change{}) {
			b.Changes = append(b.Changes, change)
		}
	case strings.EqualFold(key, KeyReverts):
		if id, err := gitsource.ParseObjectID(value); err == nil {
			b.Reverts = append(b.Reverts, id)
		}
	case strings.EqualFold(key, KeyVerdict):
		b.Verdict = value
	case strings.EqualFold(key, KeyEvidence):
		b.Evidence = value
	default:
		b.Other = append(b.Other, line)
	}
}

// Append returns message with exactly one block of trailers at its end. A block
// that is there keeps its foreign lines; Slipway's own lines are those of b.
func Append(message string, b Block) string {
	body, old := split(message)
	var lines []string
	for _, line := range append(old, b.Other...) {
		line = oneLine(line)
		key, _, ok := cut(line)
		if ok && !own(key) && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	for _, change := range b.Changes {
		if text := change.String(); text != "" {
			lines = append(lines, KeyChange+": "+text)
		}
	}
	for _, id := range b.Reverts {
		lines = append(lines, KeyReverts+": "+string(id))
	}
	if verdict := oneLine(b.Verdict); verdict != "" {
		lines = append(lines, KeyVerdict+": "+verdict)
	}
	// White space within JSON text is kept. A line break can only be escaped there.
	if evidence := strings.TrimSpace(b.Evidence); strings.HasPrefix(evidence, "{") && !strings.ContainsAny(evidence, "\r\n") {
		lines = append(lines, KeyEvidence+": "+evidence)
	}
	if b.Irreversible {
		lines = append(lines, KeyIrreversible+": true")
	}
	if len(lines) == 0 {
		return body
	}
	if body != "" {
		body += "\n"
	}
	return body + strings.Join(lines, "\n") + "\n"
}

// String returns the fields as a trailer has them: "app=shop env=production image=...".
func (c Change) String() string {
	var parts []string
	for _, f := range c.fields() {
		if *f.value != "" {
			parts = append(parts, fmt.Sprintf("%s=%s", f.key, escape(*f.value)))
		}
	}
	return strings.Join(parts, " ")
}

func parseChange(text string) Change {
	var c Change
	for _, part := range strings.Fields(text) {
		key, value, _ := strings.Cut(part, "=")
		if key == "environment" {
			key = "env"
		}
		for _, f := range c.fields() {
			if f.key == key {
				*f.value = unescape(value)
			}
		}
	}
	return c
}

type field struct {
	key   string
	value *string
}

func (c *Change) fields() []field {
	return []field{
		{"app", &c.App},
		{"env", &c.Environment},
		{"image", &c.Image},
		{"source", &c.Source},
		{"run", &c.Run},
		{"trace", &c.Trace},
	}
}

// escape percent-encodes what would end a field or a line.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c <= ' ' || c == '%' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func unescape(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

// split cuts the last paragraph off if it is a block of trailers. The body has
// one line feed at its end, or is empty; folded lines are unfolded. The first paragraph is
// the subject, never a block.
func split(message string) (body string, lines []string) {
	message = strings.TrimSpace(strings.ReplaceAll(message, "\r\n", "\n"))
	if message == "" {
		return "", nil
	}
	at := strings.LastIndex(message, "\n\n")
	if at < 0 {
		return message + "\n", nil
	}
	for line := range strings.Lines(message[at+2:]) {
		line = strings.TrimRight(line, "\n\t ")
		if line == "" {
			continue
		}
		if folded := line[0] == ' ' || line[0] == '\t'; folded && len(lines) > 0 {
			lines[len(lines)-1] += " " + strings.TrimSpace(line)
			continue
		}
		if !keyed.MatchString(line) {
			return message + "\n", nil
		}
		lines = append(lines, line)
	}
	return strings.TrimRight(message[:at], "\n\t ") + "\n", lines
}

func cut(line string) (key, value string, ok bool) {
	m := keyed.FindStringSubmatch(line)
	if m == nil {
		return "", "", false
	}
	return m[1], strings.TrimSpace(m[2]), true
}

func own(key string) bool {
	return slices.ContainsFunc([]string{KeyChange, KeyReverts, KeyVerdict, KeyEvidence, KeyIrreversible},
		func(k string) bool { return strings.EqualFold(k, key) })
}

func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " ")
}
