package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
)

// A tool is a program that the checks use, at one version, so that they say the same everywhere.
type tool struct {
	pkg     string
	version string
	goal    string // what it is for
}

var (
	gofumpt       = tool{"mvdan.cc/gofumpt", "v0.10.0", "formatting"}
	staticcheck   = tool{"honnef.co/go/tools/cmd/staticcheck", "v0.7.0", "static analysis"}
	controllerGen = tool{"sigs.k8s.io/controller-tools/cmd/controller-gen", "v0.22.0", "CRDs and DeepCopy"}
	govulncheck   = tool{"golang.org/x/vuln/cmd/govulncheck", "v1.9.0", "known vulnerabilities"}
	cosign        = tool{"github.com/sigstore/cosign/v3/cmd/cosign", "v3.1.3", "signatures, by another's eyes"}
	kustomize     = tool{"sigs.k8s.io/kustomize/kustomize/v5", "v5.8.2", "kustomizations, by another's eyes"} // the one with the libraries of go.mod
	helm          = tool{"helm.sh/helm/v3/cmd/helm", "v3.22.0", "charts, by another's eyes"}                  // as is this one
)

func allTools() []tool {
	return []tool{gofumpt, staticcheck, controllerGen, govulncheck, cosign, kustomize, helm}
}

// name is that of the program: the last element of its package that is not a major version.
func (t tool) name() string {
	if base := path.Base(t.pkg); !major.MatchString(base) {
		return base
	}
	return path.Base(path.Dir(t.pkg))
}

var major = regexp.MustCompile(`^v[0-9]+$`)

// path is below the user's cache, by version and by the Go that built it: analysers read what their own Go knows.
func (t tool) path(goVersion string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%s: %w (set HOME or XDG_CACHE_HOME)", t.name(), err)
	}
	return filepath.Join(cache, "slipway", "tools", t.version+"-"+goVersion, t.name()), nil
}

// find returns the path of the tool and installs it if it is not there.
func (t tool) find(ctx context.Context) (string, error) {
	version, err := output(ctx, "go", "env", "GOVERSION")
	if err != nil {
		return "", err
	}
	program, err := t.path(version)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(program); !errors.Is(err, fs.ErrNotExist) {
		return program, err
	}
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return "", fmt.Errorf("%s: %w (set XDG_CACHE_HOME to a folder that can be written)", t.name(), err)
	}
	// Installed beside and renamed: one that was interrupted must not be taken for complete.
	unfinished, err := os.MkdirTemp(filepath.Dir(program), t.name()+".part-")
	if err != nil {
		return "", fmt.Errorf("%s: %w", t.name(), err)
	}
	defer os.RemoveAll(unfinished)
	cmd := command(ctx, "go", "install", t.pkg+"@"+t.version)
	cmd.Env = append(cmd.Env, "GOBIN="+unfinished)
	if err := quietly(ctx, "installing "+t.name()+" "+t.version, cmd); err != nil {
		return "", fmt.Errorf("%w (without the module proxy, put %s %s at %s)", err, t.name(), t.version, program)
	}
	if err := os.Rename(filepath.Join(unfinished, t.name()), program); err != nil {
		return "", fmt.Errorf("%s: %w", t.name(), err)
	}
	return program, nil
}

// install makes sure that tools are there and says where.
func install(ctx context.Context, tools ...tool) error {
	for _, t := range tools {
		program, err := t.find(ctx)
		if err != nil {
			return err
		}
		say("%-15s %-8s %-22s %s", t.name(), t.version, t.goal, program)
	}
	return nil
}

// where installs the tool of a name and prints its path.
func where(ctx context.Context, name string) error {
	for _, t := range allTools() {
		if t.name() == name {
			program, err := t.find(ctx)
			if err != nil {
				return err
			}
			say("%s", program)
			return nil
		}
	}
	return fmt.Errorf("no tool %q (see go run ./e2e/testrun tools)", name)
}

// vuln looks up what the programs call in Go's vulnerability database.
func vuln(ctx context.Context) error {
	program, err := govulncheck.find(ctx)
	if err != nil {
		return err
	}
	cmd := command(ctx, program, "./...")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("govulncheck: %w (it needs https://vuln.go.dev, or GOVULNDB with a copy of it)", err)
	}
	return nil
}
