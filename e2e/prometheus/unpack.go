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

	"github.com/slipway-cd/slipway/e2e/programs"
)

// program returns the binary from the user's cache, unpacked the first time.
func program(ctx context.Context, log io.Writer) (string, error) {
	dir, err := programs.Once(ctx, "prometheus", "debian-"+runtime.GOARCH, log, func(ctx context.Context, dir string) error {
		fmt.Fprintln(log, "testbed: downloading Debian's prometheus into the cache")
		return unpack(ctx, dir)
	})
	return filepath.Join(dir, "usr", "bin", "prometheus"), err
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
