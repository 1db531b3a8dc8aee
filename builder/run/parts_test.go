package run

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
)

func TestCheckout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var said []string
	c := checkout{say: func(s string) { said = append(said, s) }, tree: tree{fstest.MapFS{
		"go.mod": {Data: []byte("module x\n")}, "bin/tool": {Data: []byte("#!/bin/sh\n"), Mode: 0o755},
		"link": {Data: []byte("bin/tool"), Mode: fs.ModeSymlink | 0o777}, "bin/up": {Data: []byte("../go.mod"), Mode: fs.ModeSymlink | 0o777},
		"sub": {Mode: fs.ModeIrregular},
	}}}
	if err := c.write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "bin/up")); err != nil || string(b) != "module x\n" {
		t.Error(string(b), err)
	}
	if info, err := os.Stat(filepath.Join(dir, "link")); err != nil || info.Mode().Perm() != 0o755 {
		t.Error(info, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil || info.Mode().Perm() != 0o644 {
		t.Error(info, err)
	}
	if len(said) != 1 || !strings.Contains(said[0], "sub is a submodule") || c.files != 5 {
		t.Error(said, c.files)
	}
}

func TestCheckoutRefuses(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]fstest.MapFS{
		"a link that leaves the tree":  {"a": {Data: []byte("../../etc"), Mode: fs.ModeSymlink | 0o777}},
		"a link to an absolute path":   {"a": {Data: []byte("/etc/passwd"), Mode: fs.ModeSymlink | 0o777}},
		"a link that leaves from deep": {"x/y/a": {Data: []byte("../../../etc"), Mode: fs.ModeSymlink | 0o777}},
		"git's own folder":             {".git/config": {Data: []byte("[core]\n")}},
		"the same in other letters":    {"x/.GIT/config": {Data: []byte("[core]\n")}},
	} {
		dir := t.TempDir()
		c := checkout{say: func(string) {}, tree: tree{files}}
		if err := c.write(t.Context(), dir); err == nil {
			t.Errorf("%s was checked out", name)
		}
	}
}

// TestReposTakeTurns: one repository's hundred Jobs do not stand before another's one.
func TestReposTakeTurns(t *testing.T) {
	t.Parallel()
	d := newDispatcher(4, time.Minute)
	for i := range 100 {
		d.set(fmt.Sprintf("big-%03d", i), "big", map[string]int{"a": 0})
	}
	if got := d.pick(noon); len(got) != 4 {
		t.Fatalf("a window of 4 holds %q", got)
	}
	d.set("small-1", "small", map[string]int{"a": 0})
	d.set("tiny-1", "tiny", map[string]int{"a": 0})
	if got := d.pick(noon); len(got) != 0 {
		t.Fatalf("over the window: %q", got)
	}
	d.set("big-000", "big", nil) // claimed
	d.set("big-001", "big", nil)
	d.set("big-002", "big", nil)
	if got, want := fmt.Sprint(d.pick(noon)), "[small-1/a tiny-1/a big-004/a]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := d.pick(noon.Add(time.Minute)); len(got) != 4 {
		t.Errorf("given again: %q", got)
	}
	d.set("small-1", "small", map[string]int{"a": 1}) // claimed, failed and free again, before anybody looked
	if got, want := fmt.Sprint(d.pick(noon.Add(time.Minute))), "[small-1/a]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	d.failed("small-1/a") // its place in the window is the next repository's, then it has its turn again
	for _, want := range []string{"[big-005/a]", "[small-1/a]"} {
		if got := fmt.Sprint(d.pick(noon.Add(time.Minute))); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		d.set("big-005", "big", nil)
	}
}

// TestTurns: a key is never with two takers, and none that was added is forgotten.
func TestTurns(t *testing.T) {
	t.Parallel()
	ts := newTurns()
	var mu sync.Mutex
	busy, taken := map[string]bool{}, map[string]int{}
	ctx := within(t)
	for range 4 {
		go ts.take(ctx, func(key string) {
			mu.Lock()
			if busy[key] {
				t.Error(key + " is with two")
			}
			busy[key] = true
			mu.Unlock()
			mu.Lock()
			defer mu.Unlock()
			busy[key] = false
			taken[key]++
		})
	}
	for i := range 2000 {
		ts.add(fmt.Sprint("key", i%7))
	}
	ts.addAfter("later", time.Millisecond)
	eventually(t, func() (bool, any) {
		mu.Lock()
		defer mu.Unlock()
		return len(taken) == 8, fmt.Sprint(taken)
	})
}

func TestRunIDs(t *testing.T) {
	t.Parallel()
	d := push("c0ffee")
	d.ReceivedAt = noon
	id := deliveredID(d)
	if !strings.HasPrefix(id, "20260102-120000-000-") || id != deliveredID(d) {
		t.Error(id)
	}
	d.ReceivedAt = noon.Add(time.Millisecond)
	if later := deliveredID(d); later <= id {
		t.Errorf("%s does not sort behind %s", later, id)
	}
	d.ReceivedAt = noon
	d.Repo.Name = "other"
	if deliveredID(d) == id {
		t.Error("two repositories share a run")
	}
	if one, two := freshID(noon), freshID(noon); one == two {
		t.Error("two retries share a run")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	if _, err := NewLoop(Options{}); err == nil {
		t.Error("a loop of nothing")
	}
	if _, err := NewWorker(WorkerOptions{}); err == nil {
		t.Error("a worker of nothing")
	}
	w := newWorld(t)
	p := w.startLoop()
	o := w.options(p)
	o.Lease = 10 * time.Millisecond
	if _, err := NewLoop(o); err == nil || !strings.Contains(err.Error(), "counts in seconds") {
		t.Error(err)
	}
	worker := w.startWorker()
	second, err := NewWorker(worker.worker.o)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, any) {
		f, err := os.Open(worker.worker.folder + ".lock")
		if err != nil {
			return false, err
		}
		defer f.Close() //nolint:errcheck // only looked at
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil, "the folder is not locked"
	})
	if err := second.Serve(within(t)); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Error(err)
	}
}
