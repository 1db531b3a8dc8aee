package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// event is one line of `go test -json`, as `go doc test2json` and `go help buildjson` describe it.
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	Elapsed     float64 // seconds
	ImportPath  string  // of build-output, such as "example.com/a [example.com/a.test]"
	FailedBuild string  // of the fail of a package: the ImportPath that did not compile
}

// result of a test. The zero value is that of a test that was running when its process died.
type result uint8

const (
	unfinished result = iota
	passed
	failed
	skipped
)

// finding is a test that did not pass.
type finding struct {
	Package string
	Test    string // empty: the package as a whole
	Reason  string // of a skip
}

func (f finding) String() string {
	s := strings.TrimSuffix(f.Package+" "+f.Test, " ")
	if f.Reason != "" {
		s += ": " + f.Reason
	}
	return s
}

// tally counts tests. A test with subtests counts as its subtests do; a fuzz target counts once, with all its seeds.
type tally struct {
	passed  int
	failed  []finding
	skipped []finding
}

func (t *tally) add(o tally) {
	t.passed += o.passed
	t.failed = append(t.failed, o.failed...)
	t.skipped = append(t.skipped, o.skipped...)
}

type testState struct {
	result result
	output []string
	start  time.Time
}

type packageState struct {
	tests  map[string]*testState
	output []string
}

// stream reads events and writes a line for each package that has ended, with the output of tests that failed.
type stream struct {
	out    io.Writer
	module string // prefix that lines leave out
	now    func() time.Time

	mu       sync.Mutex
	packages map[string]*packageState // that have not ended
	builds   map[string][]string      // what the compiler said, by ImportPath
	total    tally
	untested int // packages without tests
	last     time.Time
}

func newStream(out io.Writer, module string, now func() time.Time) *stream {
	return &stream{out: out, module: module, now: now, packages: map[string]*packageState{}, builds: map[string][]string{}, last: now()}
}

// read takes events until the end of r. What is not an event is passed on: go says some things in plain text.
func (s *stream) read(r io.Reader) error {
	lines := newLines(r)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Action == "" {
			s.plain(lines.Text())
			continue
		}
		s.take(e)
	}
	if err := lines.Err(); err != nil {
		_, drained := io.Copy(io.Discard, r) // else the writer would wait for a reader
		return fmt.Errorf("go test -json: %w", errors.Join(err, drained))
	}
	return nil
}

func (s *stream) plain(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.print("%s", line)
}

func (s *stream) take(e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Action == "build-output" {
		s.builds[e.ImportPath] = append(s.builds[e.ImportPath], e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := s.packages[e.Package]
	if p == nil {
		p = &packageState{tests: map[string]*testState{}}
		s.packages[e.Package] = p
	}
	if e.Test == "" {
		s.takePackage(p, e)
		return
	}
	t := p.tests[e.Test]
	if t == nil {
		t = &testState{start: s.now()}
		p.tests[e.Test] = t
	}
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output)
	case "pass":
		t.result = passed
	case "fail":
		t.result = failed
	case "skip":
		t.result = skipped
	}
}

func (s *stream) takePackage(p *packageState, e event) {
	switch e.Action {
	case "output":
		p.output = append(p.output, e.Output)
	case "pass", "fail", "skip":
		delete(s.packages, e.Package)
		s.end(p, e)
	}
}

// end counts a package and writes about it.
func (s *stream) end(p *packageState, e event) {
	name := strings.TrimPrefix(e.Package, s.module+"/")
	counted, show := p.count(name, e.Action == "fail")
	s.total.add(counted)
	n := counted.passed + len(counted.failed) + len(counted.skipped)
	if n == 0 {
		s.untested++
		return
	}
	took := round(time.Duration(e.Elapsed * float64(time.Second)))
	word, rest := "ok", ""
	if e.Action == "fail" {
		word = "FAIL"
	}
	if len(counted.failed) > 0 {
		rest += fmt.Sprintf(", %d failed", len(counted.failed))
	}
	if len(counted.skipped) > 0 {
		rest += fmt.Sprintf(", %d skipped", len(counted.skipped))
	}
	s.print("%-5s %-34s %4d tests %8s%s", word, name, n, took, rest)
	for _, test := range show {
		s.print("%s", strings.TrimRight(strings.Join(p.tests[test].output, ""), "\n"))
	}
	if e.Action == "fail" {
		said := strings.Join(append(s.builds[e.FailedBuild], p.output...), "")
		s.print("%s", strings.TrimRight(said, "\n"))
	}
}

// count counts the tests of a package that has ended, and names those whose output tells what went wrong.
func (p *packageState) count(name string, bad bool) (t tally, show []string) {
	parents := map[string]bool{}
	below := map[string]bool{} // tests with a failed subtest
	names := make([]string, 0, len(p.tests))
	for test, state := range p.tests {
		names = append(names, test)
		for parent := parentOf(test); parent != ""; parent = parentOf(parent) {
			parents[parent] = parents[parent] || !isSeed(test)
			below[parent] = below[parent] || state.result == failed || state.result == unfinished
		}
	}
	slices.Sort(names)
	for _, test := range names {
		state := p.tests[test]
		switch {
		case state.result == unfinished, state.result == failed:
			show = append(show, test)
			if !below[test] {
				t.failed = append(t.failed, finding{Package: name, Test: test})
			}
		case isSeed(test): // it is part of its target, and skips when the target refuses the input
		case state.result == skipped:
			t.skipped = append(t.skipped, finding{Package: name, Test: test, Reason: reason(state.output)})
		case !parents[test] && !below[test]:
			t.passed++
		}
	}
	if bad && len(t.failed) == 0 {
		t.failed = append(t.failed, finding{Package: name})
	}
	return t, show
}

// isSeed reports whether a test is one input of a fuzz target.
func isSeed(test string) bool { return strings.HasPrefix(test, "Fuzz") && strings.Contains(test, "/") }

func parentOf(test string) string {
	i := strings.LastIndexByte(test, '/')
	if i < 0 {
		return ""
	}
	return test[:i]
}

// reason finds what a test gave to t.Skip in what it printed: the last line that is not the framework's.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		if place, text, found := strings.Cut(line, ": "); found && strings.Contains(place, ".go:") {
			return text
		}
		return line
	}
	return "says no reason"
}

// running says what runs, when nothing else was said for a while.
func (s *stream) running() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now().Sub(s.last) < patience {
		return
	}
	var lines []string
	for name, p := range s.packages {
		for test, state := range p.tests {
			if state.result == unfinished && !strings.Contains(test, "/") {
				lines = append(lines, fmt.Sprintf("%s %s, %s so far", strings.TrimPrefix(name, s.module+"/"), test, round(s.now().Sub(state.start))))
			}
		}
	}
	slices.Sort(lines)
	if len(lines) == 0 {
		lines = []string{"compiling"}
	}
	s.print("...   %s", strings.Join(lines[:min(len(lines), 3)], "; "))
}

func (s *stream) print(format string, args ...any) {
	s.last = s.now()
	fmt.Fprintf(s.out, format+"\n", args...)
}
