package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// epoch is the time of a clock that stands still.
func epoch() time.Time { return time.Unix(0, 0) }

// mixed.jsonl was recorded from packages that pass, skip, fail, panic, hang, do not compile, have no tests, and exit badly.
func TestRecordedRun(t *testing.T) {
	recorded, err := os.ReadFile("testdata/mixed.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s := newStream(&out, "example.com/m", epoch)
	if err := s.read(bytes.NewReader(recorded)); err != nil {
		t.Fatal(err)
	}
	if len(s.packages) != 0 {
		t.Errorf("%d packages have not ended", len(s.packages))
	}
	well := verdict(&out, s.total, []string{"lint"}, true, 723*time.Second+time.Millisecond)
	fmt.Fprintf(&out, "all is well: %v; packages without tests: %d\n", well, s.untested)
	golden(t, "testdata/mixed.golden", out.Bytes())
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got\n%s", name, got)
	}
}

func TestVerdict(t *testing.T) {
	skip := []finding{{Package: "e2e/cluster", Test: "TestNode", Reason: "a real node needs root"}}
	for name, c := range map[string]struct {
		tally  tally
		steps  []string
		strict bool
		last   string
		well   bool
	}{
		"passed":               {tally{passed: 7}, nil, true, "7 tests passed, 0 failed, 0 skipped in 12m3s", true},
		"failed":               {tally{passed: 7, failed: skip}, nil, false, "7 tests passed, 1 failed, 0 skipped in 12m3s", false},
		"skipped by a person":  {tally{passed: 7, skipped: skip}, nil, false, "7 tests passed, 0 failed, 1 skipped in 12m3s", true},
		"skipped in CI":        {tally{passed: 7, skipped: skip}, nil, true, "7 tests passed, 0 failed, 1 skipped in 12m3s", false},
		"nothing ran":          {tally{}, nil, false, "0 tests passed, 0 failed, 0 skipped in 12m3s", false},
		"another step did not": {tally{passed: 7}, []string{"lint", "verify"}, false, "7 tests passed, 0 failed, 0 skipped in 12m3s; failed before them: lint, verify", false},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if well := verdict(&out, c.tally, c.steps, c.strict, 723*time.Second); well != c.well {
				t.Errorf("all is well: %v, want %v", well, c.well)
			}
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			if last := lines[len(lines)-1]; last != c.last {
				t.Errorf("last line %q, want %q", last, c.last)
			}
			if len(c.tally.skipped) > 0 && !strings.Contains(out.String(), "SKIPPED  e2e/cluster TestNode: a real node needs root\n") {
				t.Errorf("the skip is not listed:\n%s", out.String())
			}
		})
	}
}

// A person who waits learns which test takes so long, but not more often than patience lasts.
func TestRunningSaysWhatTakesLong(t *testing.T) {
	now := epoch()
	var out strings.Builder
	s := newStream(&out, "example.com/m", func() time.Time { return now })
	s.take(event{Action: "start", Package: "example.com/m/e2e"})
	s.take(event{Action: "run", Package: "example.com/m/e2e", Test: "TestLong"})
	s.take(event{Action: "run", Package: "example.com/m/e2e", Test: "TestLong/inner"})
	for range 3 {
		now = now.Add(patience / 2)
		s.running()
	}
	if got, want := out.String(), "...   e2e TestLong, 20s so far\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// No order of events makes the counter panic or lose a failure.
func FuzzStream(f *testing.F) {
	recorded, err := os.ReadFile("testdata/mixed.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(recorded)) {
		f.Add(line)
	}
	f.Add(string(recorded))
	f.Add(`{"Action":"fail","Package":"p","Test":"T/a"}` + "\n" + `{"Action":"fail","Package":"p"}`)
	f.Fuzz(func(t *testing.T, text string) {
		s := newStream(&bytes.Buffer{}, "m", epoch)
		if err := s.read(strings.NewReader(text)); err != nil {
			return
		}
		s.take(event{Action: "fail", Package: "last"})
		if len(s.total.failed) == 0 {
			t.Errorf("a failed package was not counted after %q", text)
		}
	})
}
