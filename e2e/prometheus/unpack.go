package prometheus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// lookEvery is how often a waiting process looks whether another one is done.
const lookEvery = 200 * time.Millisecond

// program returns the binary from the user's cache. Parallel processes unpack it once; an interrupted one leaves nothing
// that a later one would take for complete.
func program(ctx context.Context, log io.Writer) (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("prometheus: %w (set HOME or XDG_CACHE_HOME)", err)
	}
	cache := filepath.Join(user, "slipway", "testbed")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("prometheus: %w (set XDG_CACHE_HOME to a folder that can be written)", err)
	}
	dir := filepath.Join(cache, "prometheus-debian-"+runtime.GOARCH)
	path := filepath.Join(dir, "usr", "bin", "prometheus")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	unlock, err := lock(ctx, filepath.Join(cache, "prometheus.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil // another process has unpacked it meanwhile
	}
	unfinished := dir + ".part"
	if err := os.RemoveAll(unfinished); err != nil {
		return "", fmt.Errorf("prometheus: %w", err)
	}
	fmt.Fprintln(log, "testbed: downloading Debian's prometheus into the cache")
	if err := unpack(ctx, unfinished); err != nil {
		return "", fmt.Errorf("prometheus: %w", err)
	}
	if err := os.Rename(unfinished, dir); err != nil {
		return "", fmt.Errorf("prometheus: %w", err)
	}
	return path, nil
}

// unpack downloads the package with apt and unpacks it. It needs no root: where the machine's lists do not know the
// package or know an old one, it fetches lists into a folder of its own.
func unpack(ctx context.Context, dir string) error {
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return errors.New("no apt-get: this is not Debian or Ubuntu")
	}
	downloads, state := filepath.Join(dir, "downloads"), filepath.Join(dir, "apt")
	for _, d := range []string{downloads, filepath.Join(state, "lists", "partial"), filepath.Join(state, "cache", "archives", "partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	private := []string{
		"-o", "Dir::State=" + state, "-o", "Dir::State::Lists=" + filepath.Join(state, "lists"),
		"-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "Dir::Cache=" + filepath.Join(state, "cache"),
		"-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1",
	}
	if run(ctx, downloads, apt, "-o", "APT::Sandbox::User=", "download", "prometheus") != nil {
		err := errors.Join(
			run(ctx, downloads, apt, append(private, "update")...),
			run(ctx, downloads, apt, append(private, "download", "prometheus")...),
		)
		if err != nil {
			return err
		}
	}
	archives, err := filepath.Glob(filepath.Join(downloads, "prometheus_*.deb"))
	if err != nil || len(archives) != 1 {
		return fmt.Errorf("apt-get left %d packages: %w", len(archives), err)
	}
	if err := run(ctx, downloads, "dpkg-deb", "-x", archives[0], dir); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(downloads), os.RemoveAll(state))
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), args[len(args)-1], err, bytes.TrimSpace(out))
	}
	return nil
}

// lock takes a file lock; the kernel drops it when the holder dies.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("prometheus: lock: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("prometheus: lock: %w", ctx.Err()), f.Close())
		case <-tick.C:
		}
	}
}
