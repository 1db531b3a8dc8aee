package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// patience bounds what cleans up after a command, which has to happen also when the caller has gone.
	patience = 20 * time.Second
	// grace is between SIGTERM and SIGKILL. What a command could save is in folders that are removed next.
	grace = time.Second
	pace  = 20 * time.Millisecond
)

// contained runs spec by runc.
func (s *Sandbox) contained(ctx context.Context, spec Spec) (result Result, err error) {
	dir := filepath.Join(s.state, spec.ID)
	if err := os.Mkdir(dir, 0o711); err != nil {
		return Result{}, err
	}
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		err = errors.Join(err, s.remove(bounded, spec.ID))
	}()
	if spec.Dir == "" {
		spec.Dir = "/"
		if spec.Workspace != "" {
			spec.Dir = "/workspace"
		}
	}
	spec.Env = environment(spec.Env)
	space := ""
	if spec.Network && s.apart {
		out, failed := newNetwork(s.dial)
		if failed != nil {
			return Result{}, failed
		}
		defer func() { err = errors.Join(err, out.close()) }()
		space, spec.Env = out.path(), out.environment(spec.Env)
	}
	root, mounts, err := s.prepare(dir, spec)
	if err != nil {
		return Result{}, err
	}
	if err := s.config(spec, root, mounts, space).write(dir); err != nil {
		return Result{}, err
	}
	// What runc itself has to say goes to a file, so that it is not taken for output of the command.
	said := filepath.Join(dir, "runc.log")
	cmd := s.command(context.WithoutCancel(ctx), "--log", said, "run", "--keep", "--bundle", dir, spec.ID)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = stream(cmd, spec.Output, func() (stop func()) {
		return onEnd(ctx, func() { s.kill(spec.ID, cmd) })
	})
	result.OOMKilled = s.cgroups.oomKilled(spec.ID)
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		result.ExitCode = code(exit)
		if why := complaint(said); why != "" && ctx.Err() == nil && !result.OOMKilled {
			return result, fmt.Errorf("runc: %s", why)
		}
	default:
		return result, err
	}
	return result, nil
}

// complaint returns the error that runc has logged; empty if the command was started.
func complaint(file string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		if strings.Contains(line, "level=error") || strings.Contains(line, `"level":"error"`) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func code(exit *exec.ExitError) int {
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

// kill asks everything in the container to end, and soon ends what does not. While runc is still setting it up there is
// nothing to kill by name, so it is tried until runc itself has ended.
func (s *Sandbox) kill(id string, cmd *exec.Cmd) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ended := func() bool { return errors.Is(cmd.Process.Signal(syscall.Signal(0)), os.ErrProcessDone) }
	if s.terminate(ctx, id) {
		for deadline := time.Now().Add(grace); time.Now().Before(deadline) && !ended(); {
			<-time.After(pace)
		}
	}
	for ctx.Err() == nil && !ended() {
		if s.command(ctx, "kill", id, "KILL").Run() == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pace):
		}
	}
	if !ended() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the last resort
	}
}

// terminate sends SIGTERM to all that runs in the container, not to its first process alone: the kernel keeps that one
// from signals that it does not expect. It reports whether there was anything.
func (s *Sandbox) terminate(ctx context.Context, id string) bool {
	out, err := s.command(ctx, "state", id).Output()
	var state struct {
		PID    int    `json:"pid"`
		Status string `json:"status"`
	}
	if err != nil || json.Unmarshal(out, &state) != nil || state.PID <= 0 || state.Status != "running" {
		return false
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", state.PID))
	own, _ := os.Readlink("/proc/self/ns/pid")
	if err != nil || space == own {
		return false
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return false
	}
	for _, dir := range processes {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		process, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		// The handle is of one process also when the number is given to another one; so it is asked for after the handle.
		if in, err := os.Readlink(dir + "/ns/pid"); err == nil && in == space {
			_ = process.Signal(syscall.SIGTERM)
		}
		_ = process.Release()
	}
	return true
}

// remove takes away what is left of a container and its folder.
func (s *Sandbox) remove(ctx context.Context, id string) error {
	if _, err := os.Stat(filepath.Join(s.state, "containers", id)); err == nil {
		if s.command(ctx, "delete", id).Run() == nil {
			return RemoveAll(filepath.Join(s.state, id))
		}
		// It still runs, or was never begun. With --force runc waits a while also where there is nothing to wait for.
		if out, err := s.command(ctx, "delete", "--force", id).CombinedOutput(); err != nil && !strings.Contains(string(out), "does not exist") {
			return fmt.Errorf("runc delete %s: %w: %s", id, err, lastLine(out))
		}
	}
	return RemoveAll(filepath.Join(s.state, id))
}

// RemoveAll removes a folder that a command could write: also what it has closed to everybody.
func RemoveAll(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, _ error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700) // what could not be opened is told by the removal
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// onEnd calls f once when ctx ends; the function that it returns waits until that is done or will never be.
func onEnd(ctx context.Context, f func()) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
			f()
		case <-ended:
		}
	}()
	return sync.OnceFunc(func() {
		close(ended)
		<-done
	})
}

// maxLine is how long a line may be before it comes in parts.
const maxLine = 64 << 10

// linger is how long output may still come from what a command left behind.
const linger = 2 * time.Second

// stream runs cmd and hands its lines on; begun is called once it runs.
func stream(cmd *exec.Cmd, output func(string, []byte), begun func() (stop func())) error {
	var mu sync.Mutex
	stdout, stderr := &lineWriter{mu: &mu, name: "stdout", output: output}, &lineWriter{mu: &mu, name: "stderr", output: output}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = stdout, stderr, linger
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := begun()
	defer stop()
	err := cmd.Wait()
	stdout.flush()
	stderr.flush()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it has ended; only its output was held open
	}
	return err
}

// lineWriter cuts what a command prints into lines.
type lineWriter struct {
	mu     *sync.Mutex // of both streams
	name   string
	output func(string, []byte)
	rest   []byte
}

func (w *lineWriter) Write(text []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(text)
	for len(text) > 0 {
		line, after, ended := bytes.Cut(text, []byte("\n"))
		room := maxLine - len(w.rest)
		if len(line) > room {
			line, after, ended = text[:room], text[room:], true
		}
		w.rest, text = append(w.rest, line...), after
		if ended {
			w.output(w.name, bytes.TrimSuffix(w.rest, []byte("\r")))
			w.rest = w.rest[:0]
		}
	}
	return n, nil
}

func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 {
		w.output(w.name, w.rest)
		w.rest = nil
	}
}

// plain runs spec as a process of this user, in TierNone.
func plain(ctx context.Context, spec Spec) (Result, error) {
	if spec.RootFS != "" {
		return Result{}, errors.New("the stage names an image, and nothing here can run one (install runc)")
	}
	// Without mounts the paths inside are those outside.
	outside := []string{"/workspace", spec.Workspace}
	for _, m := range spec.Mounts {
		outside = append(outside, m.Target, m.Source)
	}
	paths := strings.NewReplacer(outside...)
	var command, env []string
	for _, word := range spec.Command {
		command = append(command, paths.Replace(word))
	}
	for _, word := range environment(spec.Env) {
		env = append(env, paths.Replace(word))
	}
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // its whole group is killed below
	cmd.Env = env
	cmd.Dir = spec.Workspace
	if rest, found := strings.CutPrefix(spec.Dir, "/workspace"); found {
		cmd.Dir = filepath.Join(spec.Workspace, rest)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err := stream(cmd, spec.Output, func() (stop func()) {
		return onEnd(ctx, func() {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
			for deadline := time.Now().Add(grace); time.Now().Before(deadline) && syscall.Kill(-cmd.Process.Pid, 0) == nil; {
				<-time.After(pace)
			}
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		})
	})
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return Result{ExitCode: code(exit)}, nil
	}
	return Result{}, err
}
