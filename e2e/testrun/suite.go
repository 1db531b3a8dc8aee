package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// errFailed ends a run that has said by itself what is wrong.
var errFailed = errors.New("failed")

// testTimeout is for one package; the clusters of e2e tests are built before it starts to count.
const testTimeout = "40m"

// testAll is `make test`. It goes on after lint and verify have failed, so that one run shows everything.
func testAll(ctx context.Context) error {
	start := time.Now()
	if err := needs(ctx); err != nil {
		return err
	}
	root := os.Geteuid() == 0 && runtime.GOOS == "linux"
	strict := root || os.Getenv("CI") != ""
	plan(root, strict)
	var wrong []string
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{{"lint", lint}, {"verify", verify}} {
		heading(step.name)
		if err := step.run(ctx); err != nil {
			if ctx.Err() != nil {
				return err
			}
			say("%v", err)
			wrong = append(wrong, step.name)
		}
	}
	heading("test bed")
	if err := install(ctx, cosign, kustomize, helm); err != nil {
		return err
	}
	testbed, err := prepare(ctx)
	if err != nil {
		return err
	}
	total, err := tests(ctx)
	if err != nil {
		return err
	}
	if root {
		heading("demo as an unprivileged user")
		if err := demoAsUser(ctx, testbed); err != nil {
			say("FAIL  %v", err)
			total.failed = append(total.failed, finding{Package: "e2e/demo", Test: "make demo as user " + unprivilegedName})
		} else {
			total.passed++
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !verdict(os.Stdout, total, wrong, strict, time.Since(start)) {
		return errFailed
	}
	return nil
}

func plan(root, strict bool) {
	say("slipway: everything that CI runs, on %s/%s with %d processors", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	say("  1 lint: go vet, gofumpt, staticcheck")
	say("  2 verify: generated files, go.mod")
	say("  3 test bed: Kubernetes, what a node needs, cosign, kustomize and helm, built once into the user's cache (8 to 13 minutes the first time)")
	say("  4 tests with the race detector, in random order, two packages at a time")
	say("  5 exhaustive walks through what packages without goroutines decide, without the race detector")
	say("  6 whole-system tests, two packages at a time, and those that measure alone")
	if root {
		say("  7 the demo as an unprivileged user, with simulated pods")
	} else {
		say("  Not root on Linux: no real node, and the demo is not played as a second user.")
	}
	if strict {
		say("A skipped test is a failure here.")
	}
}

func heading(name string) { say("\n== %s", name) }

// prepare builds the test bed, so that no test's timeout is spent on it, and returns its folder.
func prepare(ctx context.Context) (dir string, err error) {
	cmd := command(ctx, "go", "run", "./e2e/cluster/testbed", "build")
	cmd.Stderr = os.Stdout
	start := time.Now()
	done := stillRunning("test bed", start)
	out, err := cmd.Output()
	done()
	if err != nil {
		return "", fmt.Errorf("test bed: %w (go run ./e2e/cluster/testbed build does this alone)", err)
	}
	say("%-44s ok, %s", "test bed", since(start))
	return strings.TrimSpace(string(out)), nil
}

// tests runs the tests of all packages. Those of e2e come last.
func tests(ctx context.Context) (total tally, err error) {
	module, err := output(ctx, "go", "list", "-m")
	if err != nil {
		return tally{}, err
	}
	list, err := output(ctx, "go", "list", "-e", "./...")
	if err != nil {
		return tally{}, err
	}
	var units, systems, walks, measures []string
	for _, p := range strings.Fields(list) {
		switch name := strings.TrimPrefix(p, module+"/"); {
		case slices.Contains(walking, name):
			walks = append(walks, p)
		case slices.Contains(measuring, name):
			measures = append(measures, p)
		case p == module+"/e2e" || strings.HasPrefix(p, module+"/e2e/"):
			systems = append(systems, p)
		default:
			units = append(units, p)
		}
	}
	for _, part := range []struct {
		name     string
		packages []string
		flags    []string
	}{
		{"tests", units, []string{"-race", "-p", "2"}},
		{"exhaustive walks", walks, nil},
		{"whole-system tests", systems, []string{"-race", "-p", "2"}},
		{"whole-system tests that measure", measures, []string{"-race", "-p", "1"}},
	} {
		heading(part.name)
		counted, err := goTest(ctx, module, part.flags, part.packages)
		if err != nil {
			return tally{}, err
		}
		total.add(counted)
	}
	return total, nil
}

// walking are packages that start no goroutine, so that the race detector has nothing to find in them, and whose tests walk
// all states that can be reached: five minutes with it and half a minute without.
var walking = []string{"rollout/analysis"}

// measuring are packages that hold times or requests against bounds, so that each has the machine for itself. In the others
// most of the time is waiting.
var measuring = []string{"e2e/fleet", "e2e/progressive", "e2e/speed"}

// goTest runs the tests of packages. That some fail is no error; that go itself fails is one.
func goTest(ctx context.Context, module string, flags, packages []string) (tally, error) {
	args := slices.Concat([]string{"test", "-json", "-shuffle=on", "-timeout", testTimeout}, flags, packages)
	cmd := command(ctx, "go", args...)
	cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	cmd.Stderr = os.Stdout
	out, err := cmd.StdoutPipe()
	if err != nil {
		return tally{}, fmt.Errorf("go test: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return tally{}, fmt.Errorf("go test: %w", err)
	}
	s := newStream(os.Stdout, module, time.Now)
	watch, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-watch.Done():
				return
			case <-tick.C:
				s.running()
			}
		}
	}()
	readErr := s.read(out)
	stop()
	<-watched
	err = cmd.Wait()
	if ctx.Err() != nil {
		return tally{}, ctx.Err()
	}
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || len(s.total.failed) == 0) {
		return tally{}, fmt.Errorf("go test: %w", err)
	}
	if s.untested > 0 {
		say("%d packages have no tests", s.untested)
	}
	return s.total, readErr
}

// newLines reads lines that may be long: a failing test may print anything.
func newLines(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20)
	return lines
}
