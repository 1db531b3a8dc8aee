package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// timeline prints what happens, each line with the seconds since the start.
type timeline struct {
	out   io.Writer
	start time.Time
	mu    sync.Mutex
}

func (t *timeline) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if i == 0 {
			fmt.Fprintf(t.out, "%7.1fs  %s\n", time.Since(t.start).Seconds(), line)
			continue
		}
		fmt.Fprintf(t.out, "          %s\n", line)
	}
}

// step opens a chapter of the story.
func (t *timeline) step(number int, title string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "\n%d. %s\n", number, title)
}

// Write passes progress lines of the test bed on.
func (t *timeline) Write(p []byte) (int, error) {
	if text := strings.TrimSpace(string(p)); text != "" {
		t.say("%s", text)
	}
	return len(p), nil
}
