package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// runner starts and kills the processes of one cluster: directly, or through process 1 of a node's namespaces.
type runner interface {
	// start runs a role with its arguments; its output is appended to a log file named after it.
	start(ctx context.Context, role string, args ...string) error
	// kill sends SIGKILL and waits until the process is gone. Killing what does not run is an error.
	kill(role string) error
	// exited reports roles that ended without having been killed here.
	exited() []string
	// stop kills everything and waits for it.
	stop() error
}

// errNotRunning is returned when a role is to be killed that does not run.
var errNotRunning = errors.New("not running")

// hostRunner runs roles as children of this process. Each child holds the read end of a pipe as its standard input
// and exits at its end, so that it cannot outlive this process however that ends.
type hostRunner struct {
	binary string
	logs   string // directory of the log files
	env    []string

	mu       sync.Mutex
	children map[string]*child
}

type child struct {
	cmd      *exec.Cmd
	lifeline *os.File // write end; never written to
	done     chan struct{}
	killed   bool
}

func newHostRunner(binary, logs, home string) (*hostRunner, error) {
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, lifelineEnv + "=stdin"}
	return &hostRunner{binary: binary, logs: logs, env: env, children: map[string]*child{}}, nil
}

// lifelineEnv tells the role binary to exit at the end of its standard input.
const lifelineEnv = "TESTBED_LIFELINE"

func (r *hostRunner) start(_ context.Context, role string, args ...string) error {
	return r.spawn(role, nil, args...)
}

// spawn starts role; sys may be nil.
func (r *hostRunner) spawn(role string, sys *syscall.SysProcAttr, args ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.children[role]; c != nil && c.running() {
		return fmt.Errorf("%s: already running", role)
	}
	log, err := os.OpenFile(filepath.Join(r.logs, role+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("%s: %w", role, err)
	}
	defer log.Close()
	in, lifeline, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("%s: %w", role, err)
	}
	defer in.Close()
	cmd := exec.Command(r.binary, append([]string{role}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = in, log, log, r.env
	if sys == nil {
		sys = &syscall.SysProcAttr{}
	}
	sys.Setpgid = true // Ctrl-C goes to us; we stop the roles in order
	cmd.SysProcAttr = sys
	if err := cmd.Start(); err != nil {
		lifeline.Close()
		return fmt.Errorf("%s: %w", role, err)
	}
	c := &child{cmd: cmd, lifeline: lifeline, done: make(chan struct{})}
	r.children[role] = c
	go func() {
		defer close(c.done)
		_ = cmd.Wait() // how it ended is in its log; that it ended is what counts here
		lifeline.Close()
	}()
	return nil
}

func (c *child) running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

func (r *hostRunner) kill(role string) error {
	r.mu.Lock()
	c := r.children[role]
	if c == nil || !c.running() {
		r.mu.Unlock()
		return fmt.Errorf("%s: %w", role, errNotRunning)
	}
	c.killed = true
	r.mu.Unlock()
	_ = c.cmd.Process.Kill() // fails only when it has ended by itself
	<-c.done
	return nil
}

func (r *hostRunner) exited() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for role, c := range r.children {
		if !c.running() && !c.killed {
			names = append(names, role)
		}
	}
	return names
}

func (r *hostRunner) stop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.children {
		c.killed = true
		_ = c.cmd.Process.Kill()
	}
	for _, c := range r.children {
		<-c.done
	}
	return nil
}

// logTail returns the last lines of a role's log, for error messages.
func logTail(logs, role string, lines int) string {
	b, err := os.ReadFile(filepath.Join(logs, role+".log"))
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return string(bytes.Join(all, []byte("\n")))
}
