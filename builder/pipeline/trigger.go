package pipeline

import "strings"

// Triggered reports whether a push to branch, without refs/heads/, begins a Run.
func (p Pipeline) Triggered(branch string) bool {
	for _, pattern := range p.Trigger.Branches {
		if matches(pattern, branch) {
			return true
		}
	}
	return false
}

// matches follows the pattern with one place to go back to for each kind of star, so that its time is bounded by the
// product of the lengths, whatever the pattern.
func matches(pattern, name string) bool {
	// reached[i]: the first i characters of the pattern fit what was read of name.
	tokens := tokenize(pattern)
	reached := make([]bool, len(tokens)+1)
	reached[0] = true
	skip := func() {
		for i, t := range tokens {
			if reached[i] && (t == "*" || t == "**") {
				reached[i+1] = true
			}
		}
	}
	skip()
	for _, c := range name {
		next := make([]bool, len(tokens)+1)
		for i, t := range tokens {
			if !reached[i] {
				continue
			}
			switch {
			case t == "**", t == "*" && c != '/':
				next[i] = true
			case t == "?" && c != '/', t == string(c) && t != "*":
				next[i+1] = true
			}
		}
		reached = next
		skip()
	}
	return reached[len(tokens)]
}

func tokenize(pattern string) []string {
	var tokens []string
	for pattern != "" {
		if strings.HasPrefix(pattern, "**") {
			tokens, pattern = append(tokens, "**"), strings.TrimLeft(pattern, "*")
			continue
		}
		for _, c := range pattern {
			tokens, pattern = append(tokens, string(c)), pattern[len(string(c)):]
			break
		}
	}
	return tokens
}
