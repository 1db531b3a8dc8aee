package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// runcModule is built where no runc is installed.
const (
	runcModule  = "github.com/opencontainers/runc"
	runcVersion = "v1.5.2"
)

// findRunc returns a runc: the given one, that of the PATH, or one that is built into the cache.
func findRunc(ctx context.Context, o Options) (string, error) {
	if o.Runc != "" {
		return exec.LookPath(o.Runc)
	}
	if path, err := exec.LookPath("runc"); err == nil {
		return path, nil
	}
	if o.Cache == "" {
		return "", errors.New("runc is not installed")
	}
	variant, tags := runcVersion, "-tags="
	if exec.CommandContext(ctx, "pkg-config", "--exists", "libseccomp").Run() == nil {
		variant, tags = runcVersion+"-seccomp", "-tags=seccomp"
	}
	path := filepath.Join(o.Cache, "runc-"+variant, "runc")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, buildRunc(ctx, path, tags, o)
}

// buildRunc makes the program at path, or finds that another process has made it meanwhile.
func buildRunc(ctx context.Context, path, tags string, o Options) error {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return errors.New("runc is not installed, and there is no go to build it with")
	}
	if err := os.MkdirAll(o.Cache, 0o755); err != nil {
		return err
	}
	// Built beside and renamed: one that was interrupted must not be taken for complete.
	unfinished, err := os.MkdirTemp(o.Cache, "runc-*.part")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unfinished)
	o.Log.Info("runc is not installed: building it, about a minute the first time", "version", runcVersion, "as", path)
	build := exec.CommandContext(ctx, goTool, "install", "-trimpath", tags, "-ldflags=-s -w", runcModule+"@"+runcVersion)
	build.Dir = unfinished
	build.Env = append(os.Environ(), "GOBIN="+unfinished, "GOFLAGS=", "CGO_ENABLED=1", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build of runc %s: %w: %s (install runc)", runcVersion, err, lastLine(out))
	}
	if err := os.Rename(unfinished, filepath.Dir(path)); err != nil {
		if _, there := os.Stat(path); there != nil { // else another process was faster
			return err
		}
	}
	return nil
}

// probe runs a command that does nothing and learns from it what works.
func (s *Sandbox) probe(ctx context.Context) error {
	if err := s.sweep(ctx); err != nil {
		return err
	}
	s.tier = Tier{Name: TierRootless, Isolated: true}
	if os.Geteuid() == 0 {
		s.tier.Name = TierRoot
	}
	s.seccomp = s.hasSeccomp(ctx)
	s.deep = unix.MountSetattr(-1, "", 0, &unix.MountAttr{}) != unix.ENOSYS
	if !s.seccomp {
		s.tier.Missing = append(s.tier.Missing, "seccomp: this runc was built without it (install runc, or libseccomp-dev and pkg-config before it is built here)")
	}
	if s.tier.Name == TierRoot {
		s.cgroups = findCgroups()
	}
	err := s.try(ctx, false)
	if err != nil && s.cgroups.version != 0 {
		why := err
		s.cgroups = cgroups{}
		if err = s.try(ctx, false); err == nil {
			s.tier.Missing = append(s.tier.Missing, "limits of memory and CPU: "+why.Error())
		}
	} else if s.cgroups.version == 0 {
		s.tier.Missing = append(s.tier.Missing, "limits of memory and CPU: they need root and cgroups")
	}
	if err != nil {
		return err
	}
	apart := errors.New("that needs root")
	if s.tier.Name == TierRoot {
		s.apart = true
		apart = s.try(ctx, true)
	}
	if s.apart = apart == nil; !s.apart {
		s.tier.Missing = append(s.tier.Missing, "a network of its own for steps that ask for network: they reach what listens on the loopback of this machine: "+apart.Error())
	}
	return nil
}

func (s *Sandbox) try(ctx context.Context, network bool) error {
	var said bytes.Buffer
	result, err := s.contained(ctx, Spec{
		ID: fmt.Sprintf("probe-%d", os.Getpid()), Command: []string{"/bin/sh", "-c", "exit 42"}, Env: []string{"PATH=/usr/bin:/bin"},
		Memory: 64 << 20, PIDs: 16, Network: network, Output: func(_ string, line []byte) { said.Write(append(line, ' ')) },
	})
	if err == nil && result.ExitCode != 42 {
		err = fmt.Errorf("a command that does nothing ended with %d: %s", result.ExitCode, strings.TrimSpace(said.String()))
	}
	return err
}

// sweep ends what an earlier process that was killed left running here.
func (s *Sandbox) sweep(ctx context.Context) error {
	entries, err := os.ReadDir(s.state)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() || entry.Name() == "containers" {
			continue
		}
		if err := s.remove(ctx, entry.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sandbox) hasSeccomp(ctx context.Context) bool {
	out, err := exec.CommandContext(ctx, s.runc, "features").Output()
	if err != nil {
		// Before 1.1 there was no such question.
		version, err := exec.CommandContext(ctx, s.runc, "--version").Output()
		return err == nil && bytes.Contains(version, []byte("libseccomp"))
	}
	var features struct {
		Linux struct {
			Seccomp struct {
				Enabled bool `json:"enabled"`
			} `json:"seccomp"`
		} `json:"linux"`
	}
	return json.Unmarshal(out, &features) == nil && features.Linux.Seccomp.Enabled
}

// command is runc on the containers of this Sandbox.
func (s *Sandbox) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.runc, append([]string{"--root", filepath.Join(s.state, "containers")}, args...)...)
	// Nothing of this process's environment, which may hold secrets.
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "XDG_RUNTIME_DIR=" + s.state}
	return cmd
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
