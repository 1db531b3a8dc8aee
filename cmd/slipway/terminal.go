package main

import (
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// terminal is what the output goes to. The zero value is a file or a pipe.
type terminal struct {
	width   int // in characters; 0 if nobody looks at it
	colours bool
}

// terminalOf asks what a file is. NO_COLOR is heeded (https://no-color.org).
func terminalOf(file *os.File, env func(string) string) terminal {
	if !term.IsTerminal(int(file.Fd())) {
		return terminal{}
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	return terminal{width: width, colours: env("NO_COLOR") == "" && env("TERM") != "dumb"}
}

// A tint is a colour with a meaning (ECMA-48, 8.3.117).
type tint string

const (
	plain tint = ""
	good  tint = "32"
	doubt tint = "33"
	bad   tint = "31"
	faint tint = "2"
)

// paint colours text where colours are shown.
func (t terminal) paint(with tint, text string) string {
	if !t.colours || with == plain || text == "" {
		return text
	}
	return "\x1b[" + string(with) + "m" + text + "\x1b[0m"
}

// wrap cuts text into lines of at most width characters, between words where that can be. Without a width there is one.
func wrap(text string, width int) []string {
	words := strings.Fields(text)
	if width <= 0 {
		return []string{strings.Join(words, " ")}
	}
	var lines []string
	line := ""
	for _, word := range words {
		for utf8.RuneCountInString(word) > width {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			runes := []rune(word)
			lines, word = append(lines, string(runes[:width])), string(runes[width:])
		}
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// shorten keeps the two ends of text that is longer than width.
func shorten(text string, width int) string {
	runes := []rune(text)
	if width < 5 || len(runes) <= width {
		return text
	}
	tail := (width - 3) / 2
	return string(runes[:width-3-tail]) + "..." + string(runes[len(runes)-tail:])
}
