package traefik

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
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

const (
	// version is the newest that builds with the Go of this module: dependencies of 3.7 are refused.
	version = "3.6.12"
	// apiVersion is that of the Gateway API's CRDs.
	apiVersion = "1.6.3"
	pkg        = "github.com/traefik/traefik/v3/cmd/traefik"
)

// module is a module that has nothing but Traefik as a tool, with the replacements that Traefik itself has. Its files have
// other names than go.mod and go.sum, because embedding stops at modules.
//
//go:embed program
var module embed.FS

// buildFlags make a static program.
var buildFlags = []string{"-mod=readonly", "-trimpath", "-ldflags=-s -w -X github.com/traefik/traefik/v3/pkg/version.Version=" + version}

// buildEnv replaces the user's GOFLAGS, which may ask for -mod=mod or -race. They must not be empty: then the go command
// would take those of `go env -w`.
var buildEnv = []string{"CGO_ENABLED=0", "GOOS=linux", "GOWORK=off", "GOFLAGS=-buildvcs=false"}

// progressEvery is how often a running build says that it is alive.
const progressEvery = 10 * time.Second

// CRDs returns the folder of the Gateway API's CRDs, of its standard channel.
func CRDs(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", "sigs.k8s.io/gateway-api@v"+apiVersion)
	cmd.Env, cmd.Dir = append(os.Environ(), buildEnv...), os.TempDir()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if broken := json.Unmarshal(out, &m); broken == nil && m.Dir != "" {
		return filepath.Join(m.Dir, "config", "crd", "standard"), nil
	}
	if err == nil {
		err = errors.New("the go command names no folder")
	}
	return "", fmt.Errorf("gateway-api: source of %s: %w: %s%s (install Go: https://go.dev/dl)", apiVersion, err, m.Error, bytes.TrimSpace(stderr.Bytes()))
}

// Build returns the program from the user's cache. Parallel processes build it once; an interrupted build leaves nothing
// that a later one would take for complete.
func Build(ctx context.Context, log io.Writer) (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("traefik: %w (set HOME or XDG_CACHE_HOME)", err)
	}
	cache := filepath.Join(user, "slipway", "testbed")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("traefik: %w (set XDG_CACHE_HOME to a folder that can be written)", err)
	}
	key, err := buildKey(ctx)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "traefik-"+key)
	path := filepath.Join(dir, "traefik")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	unlock, err := lock(ctx, filepath.Join(cache, "traefik.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil // another process has built it meanwhile
	}
	return path, compile(ctx, dir, log)
}

// compile builds the program into a new folder.
func compile(ctx context.Context, dir string, log io.Writer) error {
	unfinished := dir + ".part"
	if err := errors.Join(os.RemoveAll(unfinished), os.MkdirAll(unfinished, 0o755)); err != nil {
		return fmt.Errorf("traefik: %w", err)
	}
	for from, to := range map[string]string{"module.mod": "go.mod", "module.sum": "go.sum"} {
		content, err := module.ReadFile("program/" + from)
		if err == nil {
			err = os.WriteFile(filepath.Join(unfinished, to), content, 0o600)
		}
		if err != nil {
			return fmt.Errorf("traefik: %w", err)
		}
	}
	args := append([]string{"build"}, buildFlags...)
	cmd := goCommand(ctx, append(args, "-o", "traefik", pkg)...)
	cmd.Dir = unfinished
	if err := watched(ctx, "building Traefik "+version+", 5 minutes on two cores the first time", cmd, log); err != nil {
		return err
	}
	if err := os.Rename(unfinished, dir); err != nil {
		return fmt.Errorf("traefik: %w", err)
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

// buildKey hashes everything that the program depends on.
func buildKey(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("traefik: %w (install Go: https://go.dev/dl)", err)
	}
	sums, err := module.ReadFile("program/module.sum")
	if err != nil {
		return "", fmt.Errorf("traefik: %w", err)
	}
	sum := sha256.Sum256(fmt.Append(nil, strings.TrimSpace(string(out)), runtime.GOARCH, buildFlags, buildEnv, string(sums)))
	return version + "-" + hex.EncodeToString(sum[:])[:16], nil
}

// lock takes a file lock; the kernel drops it when the holder dies.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("traefik: %w", err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("traefik: lock: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("traefik: lock: %w", ctx.Err()), f.Close())
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
