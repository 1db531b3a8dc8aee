package promoter

import (
	"net/url"
	"strings"
	"unicode"
)

// code writes foreign text as a Markdown code span on one line. Inside one, hosts
// read no mentions, references, links, images or HTML. The characters that would
// let it show something else than it is are taken out.
func code(s string, most int) string {
	s = strings.ReplaceAll(oneLine(visible(s), most), "@", "@\u2060") // and for hosts that look into code spans, no mention either
	if s == "" {
		return "`?`"
	}
	fence := strings.Repeat("`", longestRun(s, '`')+1)
	if s[0] == '`' || s[len(s)-1] == '`' {
		s = " " + s + " "
	}
	return fence + s + fence
}

// block writes foreign text as a fenced block. Its own fences are shorter, so that it cannot end the block.
func block(language, s string) string {
	if longestRun(s, '`') > longestFence {
		s = strings.ReplaceAll(s, "`", "'") // nobody means that; a fence beyond it would be longer than the text
	}
	fence := strings.Repeat("`", max(3, longestRun(s, '`')+1))
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(s, "\r\n", "\n"), "\n"), "\n")
	for i := range lines {
		lines[i] = visible(lines[i])
	}
	return fence + language + "\n" + strings.Join(lines, "\n") + "\n" + fence + "\n"
}

const longestFence = 40

// visible takes out what is not seen but changes what is: control characters, those
// that turn the direction of writing or join letters, and broken UTF-8.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == '\u2028', r == '\u2029':
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

func longestRun(s string, of rune) int {
	longest, now := 0, 0
	for _, r := range s {
		if r != of {
			now = 0
			continue
		}
		now++
		longest = max(longest, now)
	}
	return longest
}

// link writes a code span that leads to address, or the span alone if that is not a web address.
func link(text, address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || strings.ContainsAny(address, "<>()[]`\"\\ \t\n") {
		return text
	}
	return "[" + text + "](" + u.String() + ")"
}
