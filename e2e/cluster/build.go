package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"time"
)

// kubernetesVersion is what the role binary reports; it must match roles/go.mod.
const kubernetesVersion = "v1.37.2"

// rolesFlags link the role binary: stripped, and with the version that clients ask for (without it, v0.0.0).
var rolesFlags = []string{
	"-trimpath",
	"-ldflags=-s -w" +
		" -X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
		" -X k8s.io/component-base/version.gitMajor=1" +
		" -X k8s.io/component-base/version.gitMinor=37" +
		" -X k8s.io/component-base/version.gitTreeState=clean",
}

// progressEvery is how often a running build says that it is alive.
const progressEvery = 10 * time.Second

// cache is the folder of everything that the test bed builds or unpacks, shared by all processes of a user.
type cache struct {
	dir string
	log io.Writer
}

func newCache(log io.Writer) (cache, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return cache{}, fmt.Errorf("test bed cache: %w (set HOME or XDG_CACHE_HOME)", err)
	}
	dir := filepath.Join(user, "slipway", "testbed")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return cache{}, fmt.Errorf("test bed cache: %w (set XDG_CACHE_HOME to a folder that can be written)", err)
	}
	return cache{dir: dir, log: log}, nil
}

// entry returns the folder dir/NAME-KEY, filled by fill when it is not there yet. Parallel processes fill it once; a fill
// that was interrupted leaves nothing that a later one would take for complete.
func (c cache) entry(ctx context.Context, name, key string, fill func(ctx context.Context, dir string) error) (string, error) {
	dir := filepath.Join(c.dir, name+"-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unlock, err := c.lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // another process has built it meanwhile
	}
	unfinished := dir + ".part"
	if err := os.RemoveAll(unfinished); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if err := os.MkdirAll(unfinished, 0o755); err != nil {
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

// lock takes the file lock of a cache entry; the kernel drops it when the holder dies.
func (c cache) lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
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
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("%s: lock: %w", name, err)
		}
		if time.Since(said) > progressEvery {
			said = time.Now()
			fmt.Fprintf(c.log, "testbed: %s: another process is building it (waited %s)\n", name, time.Since(start).Round(time.Second))
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("%s: lock: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}

// roles returns the path of the role binary, built when the inputs have changed.
func (c cache) roles(ctx context.Context) (string, error) {
	source, err := rolesSource()
	if err != nil {
		return "", err
	}
	key, err := rolesKey(source)
	if err != nil {
		return "", err
	}
	dir, err := c.entry(ctx, "roles", key, func(ctx context.Context, dir string) error {
		args := append([]string{"build"}, rolesFlags...)
		return c.goCommand(ctx, "Kubernetes "+kubernetesVersion+", 6 minutes on two cores the first time", source, nil,
			append(args, "-o", filepath.Join(dir, "roles"), ".")...)
	})
	if err != nil {
		return "", err
	}
	c.prune("roles", dir)
	return filepath.Join(dir, "roles"), nil
}

// unusedFor is how long an entry that no cluster was started from is kept; the role binary is 160 MB.
const unusedFor = 7 * 24 * time.Hour

// prune marks the entry used as fresh and removes others of that name that were not used for long. It is a courtesy: what
// cannot be removed stays.
func (c cache) prune(name, used string) {
	now := time.Now()
	_ = os.Chtimes(used, now, now)
	entries, err := filepath.Glob(filepath.Join(c.dir, name+"-*"))
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := os.Stat(e); err == nil && e != used && now.Sub(info.ModTime()) > unusedFor {
			_ = os.RemoveAll(e)
		}
	}
}

// rolesSource finds the source of the role binary: beside this file, or in the checkout that the process runs in.
// It cannot be embedded, because embedding stops at modules.
func rolesSource() (string, error) {
	var tried []string
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		tried = append(tried, filepath.Join(filepath.Dir(file), "roles"))
	}
	if wd, err := os.Getwd(); err == nil {
		for dir := wd; ; dir = filepath.Dir(dir) {
			tried = append(tried, filepath.Join(dir, "e2e", "cluster", "roles"))
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	for _, dir := range tried {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("test bed: the source of its Kubernetes (e2e/cluster/roles) was not found (run inside a checkout of slipway, or give a kubeconfig of a cluster)")
}

// rolesKey hashes everything that the role binary depends on.
func rolesKey(source string) (string, error) {
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", fmt.Errorf("roles: %w", err)
	}
	files = append(files, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum"))
	sort.Strings(files)
	h := sha256.New()
	fmt.Fprintln(h, goVersion(), runtime.GOOS, runtime.GOARCH, rolesFlags)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", fmt.Errorf("roles: %w", err)
		}
		fmt.Fprintln(h, filepath.Base(f), len(b))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// goVersion is the version of the go command, not of the one that built this binary.
func goVersion() string {
	out, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		return runtime.Version() // building will say what is wrong
	}
	return strings.TrimSpace(string(out))
}

// goFlags replace the user's, which may ask for -mod=mod or -race. They must not be empty: then the go command would take
// those of `go env -w`. Stamping fails in a checkout that belongs to another user, and nobody reads the stamp.
const goFlags = "-buildvcs=false"

// goCommand runs the go command for a static Linux binary, saying every ten seconds what it builds and for how long.
func (c cache) goCommand(ctx context.Context, what, dir string, env []string, args ...string) error {
	path, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("%w (install Go: https://go.dev/dl)", err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS="+goFlags), env...)
	return c.command(ctx, "building "+what, cmd)
}

// command runs cmd with progress lines; its output is shown only when it fails.
func (c cache) command(ctx context.Context, what string, cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	fmt.Fprintf(c.log, "testbed: %s\n", what)
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
			fmt.Fprintf(c.log, "testbed: %s: %s so far\n", what, time.Since(start).Round(time.Second))
		case err := <-done:
			if ctx.Err() != nil {
				return fmt.Errorf("%s: %w", what, ctx.Err())
			}
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", what, err, bytes.TrimSpace(out.Bytes()))
			}
			fmt.Fprintf(c.log, "testbed: %s: done in %s\n", what, time.Since(start).Round(time.Second))
			return nil
		}
	}
}
