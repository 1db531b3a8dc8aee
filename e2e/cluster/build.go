package cluster

import (
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
	"time"

	"github.com/slipway-cd/slipway/e2e/programs"
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

// cache is the folder of everything that the test bed builds or unpacks, shared by all processes of a user.
type cache struct {
	dir string
	log io.Writer
}

func newCache(log io.Writer) (cache, error) {
	dir, err := programs.Dir()
	if err != nil {
		return cache{}, err
	}
	return cache{dir: dir, log: log}, nil
}

// entry returns the folder dir/NAME-KEY, filled by fill when it is not there yet.
func (c cache) entry(ctx context.Context, name, key string, fill func(ctx context.Context, dir string) error) (string, error) {
	return programs.Once(ctx, name, key, c.log, fill)
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
	return programs.Run(ctx, "building "+what, cmd, c.log)
}
