package traefik

import (
	"context"
	"embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/slipway-cd/slipway/e2e/programs"
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

// CRDs returns the folder of the Gateway API's CRDs, of its standard channel.
func CRDs(ctx context.Context) (string, error) {
	dir, err := programs.Source(ctx, "sigs.k8s.io/gateway-api@v"+apiVersion, buildEnv)
	return filepath.Join(dir, "config", "crd", "standard"), err
}

// Build returns the program from the user's cache, made the first time.
func Build(ctx context.Context, log io.Writer) (string, error) {
	sums, err := module.ReadFile("program/module.sum")
	if err != nil {
		return "", fmt.Errorf("traefik: %w", err)
	}
	key, err := programs.Key(ctx, version, runtime.GOARCH, buildFlags, buildEnv, string(sums))
	if err != nil {
		return "", fmt.Errorf("traefik: %w", err)
	}
	dir, err := programs.Once(ctx, "traefik", key, log, func(ctx context.Context, dir string) error {
		for from, to := range map[string]string{"module.mod": "go.mod", "module.sum": "go.sum"} {
			content, err := module.ReadFile("program/" + from)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, to), content, 0o600)
			}
			if err != nil {
				return err
			}
		}
		args := slices.Concat([]string{"build"}, buildFlags, []string{"-o", "traefik", pkg})
		return programs.Go(ctx, "building Traefik "+version+", 5 minutes on two cores the first time", dir, buildEnv, log, args...)
	})
	return filepath.Join(dir, "traefik"), err
}
