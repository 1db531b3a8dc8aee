package world

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/slipway-cd/slipway/e2e/cluster"
)

// Binary returns the path of a command of this module, such as "slipway-agent",
// and compiles it unless Options.Bin has it. Binaries with the build tag failpoints
// stop where they are told to.
func (w *World) Binary(ctx context.Context, command string, tags ...string) (string, error) {
	name := strings.Join(append([]string{command}, tags...), "-")
	if w.bin != "" {
		ready := filepath.Join(w.bin, name)
		if _, err := os.Stat(ready); err == nil {
			return filepath.Abs(ready)
		}
	}
	w.building.Lock()
	defer w.building.Unlock()
	if path := w.built[name]; path != "" {
		return path, nil // to ask go whether it is up to date takes a second, and tests start agents often
	}
	root, err := ModuleRoot(ctx)
	if err != nil {
		return "", fmt.Errorf("build of %s: %w", name, err)
	}
	// Always at the same place, so that go sees what is up to date and does not link again.
	path := filepath.Join(root, "bin", "test", name)
	build := exec.CommandContext(ctx, "go", "build", "-tags", strings.Join(tags, ","), "-o", path, "github.com/slipway-cd/slipway/cmd/"+command)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build of %s: %w\n%s", name, err, out)
	}
	if w.built == nil {
		w.built = map[string]string{}
	}
	w.built[name] = path
	return path, nil
}

// ModuleRoot is the folder of this module's go.mod.
func ModuleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Sample pushes the sample service in a version that behaves in a way: "ready",
// "crash" or "never-ready". It returns NAME@sha256:DIGEST.
func (w *World) Sample(ctx context.Context, version, behaviour string) (string, error) {
	root, err := ModuleRoot(ctx)
	if err != nil {
		return "", err
	}
	return cluster.BuildImage(ctx, w.Registry, cluster.ImageSpec{
		Package: filepath.Join(root, "e2e", "testdata", "shop"), Repository: "shop", Tag: version,
		Env:    map[string]string{"SHOP_VERSION": version, "SHOP_BEHAVIOUR": behaviour},
		Labels: map[string]string{cluster.BehaviourLabel: behaviour},
	})
}

// Process is a binary of Slipway that runs.
type Process struct {
	Name string
	Log  string // file with its output

	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Run starts a program in the folder of the World. It dies with this one.
func (w *World) Run(name, program string, args, env []string) (*Process, error) {
	dir, err := w.folder("logs")
	if err != nil {
		return nil, err
	}
	p := &Process{Name: name, Log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(program, args...) //nolint:noctx // ended by Kill
	p.cmd.Env, p.cmd.Dir = append(os.Environ(), env...), w.Dir
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	// The kernel sends Pdeathsig when the thread ends that started the child, so that thread waits for it.
	go func() {
		runtime.LockOSThread()
		defer close(p.done)
		defer out.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	w.mu.Lock()
	w.processes = append(w.processes, p)
	w.mu.Unlock()
	return p, nil
}

// Freeze makes the process and its children stand still, as a machine short of memory does; Thaw lets them go on.
func (p *Process) Freeze() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP) }

// Thaw ends Freeze.
func (p *Process) Thaw() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) }

// Kill ends the process and its children as if by kill -9 and waits until it is gone.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// Stop asks the process to end and waits for it, at most for the given time.
func (p *Process) Stop(atMost time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(atMost):
		p.Kill()
		return fmt.Errorf("%s did not end within %s of SIGTERM", p.Name, atMost)
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Killed reports whether the process ended by SIGKILL, as failpoints do it.
func (p *Process) Killed() bool {
	var exit *exec.ExitError
	if !errors.As(p.err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// Pid is that of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Usage is what a process has used.
type Usage struct {
	CPU    time.Duration // user and system, children that were waited for included
	Memory int64         // resident, in bytes
}

// ticks per second of /proc/PID/stat: USER_HZ, which Linux fixes at 100 for programs.
const ticks = 100

// Usage reads /proc: of the process and of its living children.
func (p *Process) Usage() (Usage, error) {
	pids := []int{p.cmd.Process.Pid}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pids[0], pids[0]))
	if err == nil {
		for _, field := range strings.Fields(string(children)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	var all Usage
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // a child that has just ended
		}
		// The name in brackets may hold spaces; what counts stands after it.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 22 {
			return Usage{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
		}
		number := func(i int) int64 {
			n, _ := strconv.ParseInt(fields[i], 10, 64)
			return n
		}
		all.CPU += time.Duration(number(11)+number(12)) * time.Second / ticks
		all.Memory += number(21) * int64(os.Getpagesize())
	}
	return all, nil
}

// AgentOptions of one run of the agent.
type AgentOptions struct {
	Failpoint string   // stop exactly there, or at any of several with commas between; empty for the shipped binary
	User      string   // whose rights it has; default AgentUser
	Name      string   // of the process and of its cache; default slipway-agent
	Args      []string // more flags
	// Clock is how far the clock of the agent's machine is ahead of the API server's; negative when it is behind.
	Clock time.Duration
	// Within is a program with arguments that starts the agent, whose own command line follows.
	Within []string
}

// StartAgent starts slipway-agent with the rights of its own user.
func (w *World) StartAgent(ctx context.Context, o AgentOptions) (*Process, error) {
	var tags, env []string
	if o.Failpoint != "" || o.Clock != 0 {
		tags, env = []string{"failpoints"}, []string{"SLIPWAY_FAILPOINT=" + o.Failpoint, "SLIPWAY_CLOCK=" + o.Clock.String()}
	}
	binary, err := w.Binary(ctx, "slipway-agent", tags...)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := w.Cluster.UserKubeconfig(cmp.Or(o.User, AgentUser))
	if err != nil {
		return nil, err
	}
	args := []string{
		"--cluster", ClusterName, "--kubeconfig", kubeconfig, "--namespace", Namespace,
		"--cache-dir", filepath.Join(w.Dir, cmp.Or(o.Name, "agent")), "--metrics-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0",
	}
	line := slices.Concat(o.Within, []string{binary}, args, o.Args)
	return w.Run(cmp.Or(o.Name, "slipway-agent"), line[0], line[1:], env)
}
