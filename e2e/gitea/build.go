package gitea

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// version is the newest that builds with the Go of this module: some dependencies of 1.27 are refused.
const version = "1.26.4"

// buildFlags make the program. SQLite needs cgo.
var buildFlags = []string{
	"-mod=readonly", "-trimpath", "-tags=sqlite sqlite_unlock_notify timetzdata", "-ldflags=-s -w -X main.Version=" + version,
}

// buildEnv replaces the user's GOFLAGS, which may ask for -mod=mod or -race. They must not be empty: then the go command
// would take those of `go env -w`. The module cache is no checkout, so there is nothing to stamp.
var buildEnv = []string{"CGO_ENABLED=1", "GOWORK=off", "GOFLAGS=-buildvcs=false"}

// progressEvery is how often a running build says that it is alive.
const progressEvery = 10 * time.Second

// program is a Gitea that can be started.
type program struct {
	path   string
	static string // folder of templates and locales: the unpacked module
}

// Build makes the program ready, so that a Start after it takes seconds. Start does the same where nobody did.
func Build(ctx context.Context, log io.Writer) error {
	_, err := build(ctx, log)
	return err
}

// build returns the program from the user's cache. Parallel processes build it once; an interrupted build leaves nothing
// that a later one would take for complete.
func build(ctx context.Context, log io.Writer) (program, error) {
	if log == nil {
		log = io.Discard
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return program{}, fmt.Errorf("gitea: %w (set HOME or XDG_CACHE_HOME)", err)
	}
	static, err := module(ctx)
	if err != nil {
		return program{}, err
	}
	key, err := buildKey(ctx)
	if err != nil {
		return program{}, err
	}
	cache := filepath.Join(user, "slipway", "testbed")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return program{}, fmt.Errorf("gitea: %w (set XDG_CACHE_HOME to a folder that can be written)", err)
	}
	p := program{path: filepath.Join(cache, "gitea-"+key, "gitea"), static: static}
	if _, err := os.Stat(p.path); err == nil {
		return p, nil
	}
	unlock, err := lock(ctx, filepath.Join(cache, "gitea.lock"), log)
	if err != nil {
		return program{}, err
	}
	defer unlock()
	if _, err := os.Stat(p.path); err == nil {
		return p, nil // another process has built it meanwhile
	}
	return p, compile(ctx, static, filepath.Dir(p.path), log)
}

// compile builds the program of the module into a new folder.
func compile(ctx context.Context, module, dir string, log io.Writer) error {
	unfinished := dir + ".part"
	if err := errors.Join(os.RemoveAll(unfinished), os.MkdirAll(unfinished, 0o755)); err != nil {
		return fmt.Errorf("gitea: %w", err)
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		return fmt.Errorf("gitea: %w (install gcc: SQLite is written in C)", err)
	}
	args := append([]string{"build", "-C", module}, buildFlags...)
	cmd := goCommand(ctx, append(args, "-o", filepath.Join(unfinished, "gitea"), ".")...)
	if err := watched(ctx, "building Gitea "+version+", 5 minutes on two cores the first time", cmd, log); err != nil {
		return err
	}
	if err := os.Rename(unfinished, dir); err != nil {
		return fmt.Errorf("gitea: %w", err)
	}
	return nil
}

// goCommand is a go command that lets others have the processor first: who waits for a build of minutes also works.
func goCommand(ctx context.Context, args ...string) *exec.Cmd {
	name := "go"
	if nice, err := exec.LookPath("nice"); err == nil {
		name, args = nice, append([]string{"-n", "10", "go"}, args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), buildEnv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// module downloads Gitea's source and returns its folder in the module cache.
func module(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", "code.gitea.io/gitea@v"+version)
	cmd.Env, cmd.Dir = append(os.Environ(), buildEnv...), os.TempDir()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if broken := json.Unmarshal(out, &m); broken == nil && m.Dir != "" {
		return m.Dir, nil
	}
	if err == nil {
		err = errors.New("the go command names no folder")
	}
	return "", fmt.Errorf("gitea: source of %s: %w: %s%s (install Go: https://go.dev/dl)", version, err, m.Error, bytes.TrimSpace(stderr.Bytes()))
}

// buildKey hashes everything that the program depends on.
func buildKey(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("gitea: %w (install Go: https://go.dev/dl)", err)
	}
	sum := sha256.Sum256(fmt.Append(nil, strings.TrimSpace(string(out)), runtime.GOOS, runtime.GOARCH, buildFlags, buildEnv))
	return version + "-" + hex.EncodeToString(sum[:])[:16], nil
}

// lock takes a file lock; the kernel drops it when the holder dies.
func lock(ctx context.Context, path string, log io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("gitea: %w", err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	var said time.Time
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("gitea: lock: %w", err), f.Close())
		}
		if time.Since(said) > progressEvery {
			said = time.Now()
			fmt.Fprintf(log, "testbed: gitea: another process is building it (waited %s)\n", time.Since(start).Round(time.Second))
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("gitea: lock: %w", ctx.Err()), f.Close())
		case <-tick.C:
		}
	}
}

// watched runs cmd with progress lines; its output is shown only when it fails.
func watched(ctx context.Context, what string, cmd *exec.Cmd, log io.Writer) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	fmt.Fprintf(log, "testbed: %s\n", what)
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprintf(log, "testbed: %s: %s so far\n", what, time.Since(start).Round(time.Second))
		case err := <-done:
			if ctx.Err() != nil {
				return fmt.Errorf("%s: %w", what, ctx.Err())
			}
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", what, err, bytes.TrimSpace(out.Bytes()))
			}
			fmt.Fprintf(log, "testbed: %s: done in %s\n", what, time.Since(start).Round(time.Second))
			return nil
		}
	}
}
