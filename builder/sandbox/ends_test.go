package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder/sandbox"
)

// TestParallel: commands at the same time see each other neither through processes nor through folders.
func TestParallel(t *testing.T) {
	w := newWorld(t, nil)
	var running sync.WaitGroup
	for i := range 4 {
		workspace := filepath.Join(open(t), "job")
		if err := os.Mkdir(workspace, 0o700); err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			script := fmt.Sprintf("echo mine > own; echo /tmp/* /dev/shm/*; touch /tmp/%d /dev/shm/%d; sleep 0.5; ls; ls -d /proc/[0-9]* | wc -l", i, i)
			result, out, err := w.try(t.Context(), script, func(s *sandbox.Spec) { s.Workspace = workspace })
			if err != nil || result.ExitCode != 0 || !strings.HasPrefix(out, "/tmp/* /dev/shm/*\nown\n") {
				t.Errorf("%d: %+v %v\n%s", i, result, err, out)
			}
			if content, err := os.ReadFile(filepath.Join(workspace, "own")); err != nil || string(content) != "mine\n" {
				t.Errorf("%d: %q %v", i, content, err)
			}
		})
	}
	running.Wait()
}

// TestTerminated: commands may end in order before they are ended.
func TestTerminated(t *testing.T) {
	w := newWorld(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var lines []string
	start := time.Now()
	_, _, err := w.try(ctx, "trap 'echo ended in order; exit 0' TERM; echo ready; while :; do sleep 0.1; done", func(s *sandbox.Spec) {
		s.Output = func(_ string, line []byte) {
			lines = append(lines, string(line))
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || !slices.Contains(lines, "ended in order") {
		t.Errorf("%v %q after %s", err, lines, time.Since(start))
	}
}

// TestNothingLeft: neither mounts nor cgroups nor processes, however a command ended.
func TestNothingLeft(t *testing.T) {
	state := open(t)
	w := newWorld(t, func(o *sandbox.Options) { o.State = state })
	name := "9" + strings.TrimLeft(fmt.Sprint(os.Getpid()), "0")
	for _, script := range []string{
		"true", "exit 3",
		"(setsid sleep " + name + " >/dev/null 2>&1 &) ; exit 0", // a daemon
		"trap '' TERM INT HUP; setsid sleep " + name + " & while :; do sleep " + name + "; done",
	} {
		w.sh(script, func(s *sandbox.Spec) { s.Timeout, s.Network = time.Second, true })
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), state) {
		t.Errorf("mounts are left: %v\n%s", err, mounts)
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		if dirs, err := filepath.Glob(root + w.Cgroup() + "*"); err != nil || len(dirs) != 0 {
			t.Errorf("cgroups are left: %v %v", dirs, err)
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		if content, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(content), "sleep\x00"+name) {
			t.Errorf("%s is left", file)
		}
	}
}

// TestFlood: a command that prints without end fills no memory, and ends in time.
func TestFlood(t *testing.T) {
	w := newWorld(t, nil)
	lines, longest := 0, 0
	result, _ := w.sh("tr '\\0' x </dev/zero & yes; wait", func(s *sandbox.Spec) {
		s.Timeout = time.Second
		s.Output = func(_ string, line []byte) { lines, longest = lines+1, max(longest, len(line)) }
	})
	if !result.TimedOut || lines == 0 || longest > 64<<10 || result.Duration > 15*time.Second {
		t.Errorf("%+v, %d lines, the longest of %d", result, lines, longest)
	}
}
