package gitea

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/slipway-cd/slipway/e2e/programs"
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

// build returns the program from the user's cache, made the first time.
func build(ctx context.Context, log io.Writer) (program, error) {
	if log == nil {
		log = io.Discard
	}
	static, err := programs.Source(ctx, "code.gitea.io/gitea@v"+version, buildEnv)
	if err != nil {
		return program{}, fmt.Errorf("gitea: %w", err)
	}
	key, err := programs.Key(ctx, version, runtime.GOOS, runtime.GOARCH, buildFlags, buildEnv)
	if err != nil {
		return program{}, fmt.Errorf("gitea: %w", err)
	}
	dir, err := programs.Once(ctx, "gitea", key, log, func(ctx context.Context, dir string) error {
		if _, err := exec.LookPath("gcc"); err != nil {
			return fmt.Errorf("%w (install gcc: SQLite is written in C)", err)
		}
		args := slices.Concat([]string{"build", "-C", static}, buildFlags, []string{"-o", filepath.Join(dir, "gitea"), "."})
		return programs.Go(ctx, "building Gitea "+version+", 5 minutes on two cores the first time", "", buildEnv, log, args...)
	})
	return program{path: filepath.Join(dir, "gitea"), static: static}, err
}
