// Package peer runs the commands of the tools that people come from, unmodified: kustomize and Helm.
//
// It promises that what they build comes from those programs alone, from files on disk, without plugins and without a cluster.
package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Command is one of the commands.
type Command struct{ name, program string }

// Kustomize finds the kustomize command that `make tools` installs, and builds it where it is not there yet: some minutes,
// once for each user.
func Kustomize(ctx context.Context) (Command, error) { return find(ctx, "kustomize") }

// Helm finds the helm command as Kustomize does kustomize.
func Helm(ctx context.Context) (Command, error) { return find(ctx, "helm") }

func find(ctx context.Context, name string) (Command, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return Command{}, errors.New(name + ": this program does not know where the checkout is (build it without -trimpath)")
	}
	cmd := exec.CommandContext(ctx, "go", "run", "./e2e/testrun", "tool", name)
	cmd.Dir = filepath.Join(filepath.Dir(file), "..", "..")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return Command{}, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return Command{name: name, program: lines[len(lines)-1]}, nil
}

// Run runs the command in dir, with a home of its own there, and returns what it prints. The error has what it complains of.
func (c Command) Run(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "KUBECONFIG="+filepath.Join(dir, "none"), "HELM_PLUGINS="+filepath.Join(dir, "none"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", c.name, args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}
