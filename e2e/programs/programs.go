// Package programs keeps what tests need from elsewhere, built or unpacked once, in the user's cache.
package programs

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
	"strings"
	"syscall"
	"time"
)

// progressEvery is how often a running build says that it is alive.
const progressEvery = 10 * time.Second

// Dir is the folder of everything that the test bed builds or unpacks, shared by all processes of a user.
func Dir() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("test bed cache: %w (set HOME or XDG_CACHE_HOME)", err)
	}
	dir := filepath.Join(user, "slipway", "testbed")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("test bed cache: %w (set XDG_CACHE_HOME to a folder that can be written)", err)
	}
	return dir, nil
}

// Once returns the folder NAME-KEY of the cache, filled by fill when it is not there yet. Parallel processes fill it once; a
// fill that was interrupted leaves nothing that a later one would take for complete.
func Once(ctx context.Context, name, key string, log io.Writer, fill func(ctx context.Context, dir string) error) (string, error) {
	cache, err := Dir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name+"-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unlock, err := lock(ctx, cache, name, log)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // another process has filled it meanwhile
	}
	unfinished := dir + ".part"
	if err := errors.Join(os.RemoveAll(unfinished), os.MkdirAll(unfinished, 0o755)); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if err := fill(ctx, unfinished); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if err := os.Rename(unfinished, dir); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return dir, nil
}

// lock takes the file lock of a name; the kernel drops it when the holder dies.
func lock(ctx context.Context, cache, name string, log io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(cache, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
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
			return nil, errors.Join(fmt.Errorf("%s: lock: %w", name, err), f.Close())
		}
		if time.Since(said) > progressEvery {
			said = time.Now()
			fmt.Fprintf(log, "testbed: %s: another process is building it (waited %s)\n", name, time.Since(start).Round(time.Second))
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s: lock: %w", name, ctx.Err()), f.Close())
		case <-tick.C:
		}
	}
}

// Key names a build by everything that it depends on, the version of Go among it.
func Key(ctx context.Context, version string, parts ...any) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("%w (install Go: https://go.dev/dl)", err)
	}
	sum := sha256.Sum256(fmt.Append(nil, append([]any{strings.TrimSpace(string(out))}, parts...)...))
	return version + "-" + hex.EncodeToString(sum[:])[:16], nil
}

// Source downloads a module, PATH@VERSION, and returns its folder in the module cache.
func Source(ctx context.Context, module string, env []string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module) //nolint:gosec // a constant of a test
	cmd.Env, cmd.Dir = append(os.Environ(), env...), os.TempDir()
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
	return "", fmt.Errorf("source of %s: %w: %s%s (install Go: https://go.dev/dl)", module, err, m.Error, bytes.TrimSpace(stderr.Bytes()))
}

// Go is Run of a go command in a folder that lets others have the processor first: who waits for a build of minutes also works.
func Go(ctx context.Context, what, dir string, env []string, log io.Writer, args ...string) error {
	name := "go"
	if nice, err := exec.LookPath("nice"); err == nil {
		name, args = nice, append([]string{"-n", "10", "go"}, args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = append(os.Environ(), env...), dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return Run(ctx, what, cmd, log)
}

// Run runs cmd with progress lines about what it does; its output is shown only when it fails.
func Run(ctx context.Context, what string, cmd *exec.Cmd, log io.Writer) error {
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
