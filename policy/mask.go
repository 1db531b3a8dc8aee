package policy

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
)

// shortestSecret, in bytes: masking shorter values would only show where they are.
const shortestSecret = 4

// Mask hides secret values in what is printed. It cannot know what a program makes of them: it is the last line, not the first.
type Mask struct{ replacer *strings.Replacer }

// NewMask knows the values as they are, line by line, and as they are often written: in base64 and in URLs.
func NewMask(secrets []Secret) Mask {
	seen := map[string]bool{}
	var values []string
	add := func(v string) {
		if len(v) >= shortestSecret && !seen[v] {
			seen[v] = true
			values = append(values, v)
		}
	}
	for _, s := range secrets {
		value := s.Reveal()
		for line := range strings.SplitSeq(value, "\n") {
			add(strings.TrimSpace(line))
		}
		if len(value) >= shortestSecret {
			add(base64.StdEncoding.EncodeToString([]byte(value)))
			add(strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(value)), "="))
			add(base64.RawURLEncoding.EncodeToString([]byte(value)))
			add(url.QueryEscape(value))
			add(url.PathEscape(value))
		}
	}
	// The longest first: one value may be part of another.
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(values))
	for _, v := range values {
		pairs = append(pairs, v, "[secret]")
	}
	return Mask{strings.NewReplacer(pairs...)}
}

// Clean returns text with "[secret]" in place of the values.
func (m Mask) Clean(text string) string { return m.replacer.Replace(text) }
