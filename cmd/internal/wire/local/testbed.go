package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// testBed is its source in a checkout. It is run, not linked: what is shipped contains no test code.
const testBed = "./e2e/cluster/testbed"

// TestBed is a real Kubernetes on this machine, from the source of this project.
type TestBed struct {
	Kubeconfig string // of an administrator
	Registry   string // HOST:PORT that its pods pull from

	cmd   *exec.Cmd
	ended chan struct{}
	err   error
}

// StartTestBed builds and runs the test bed of the checkout that is the current
// folder, with its data below dir and its progress on log. It runs until Stop.
func StartTestBed(ctx context.Context, dir string, log io.Writer) (*TestBed, error) {
	if _, err := os.Stat(testBed); err != nil {
		return nil, fmt.Errorf("test bed: %s is not here (run it in a checkout of the source, or name a cluster with --kubeconfig)", testBed)
	}
	binary, err := filepath.Abs(filepath.Join(dir, "testbed"))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("test bed: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, testBed)
	build.Stdout, build.Stderr = log, log
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("test bed: go build: %w", err)
	}
	b := &TestBed{ended: make(chan struct{})}
	b.cmd = exec.Command(binary, "up", "-registry", filepath.Join(dir, "registry"), "-dir", filepath.Join(dir, "cluster")) //nolint:noctx // ended by Stop
	// A process group of its own: Ctrl-C ends the agent first, then what it works on.
	b.cmd.SysProcAttr = dieWithParent(&syscall.SysProcAttr{Setpgid: true})
	b.cmd.Stderr = log
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	lines := make(chan string)
	go b.run(started, lines, out)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("test bed: %w", err)
	}
	return b, b.await(ctx, lines, log)
}

// run owns the process, on one thread: the kernel takes the end of the thread that started it for that of its parent.
func (b *TestBed) run(started chan<- error, lines chan<- string, out io.Reader) {
	runtime.LockOSThread()
	defer close(b.ended)
	defer close(lines)
	err := b.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		lines <- scanner.Text()
	}
	b.err = b.cmd.Wait()
}

// await reads what it says until it is up.
func (b *TestBed) await(ctx context.Context, lines <-chan string, log io.Writer) error {
	for {
		select {
		case <-ctx.Done():
			go discard(lines)
			return errors.Join(ctx.Err(), b.Stop())
		case line, open := <-lines:
			if !open {
				<-b.ended
				return fmt.Errorf("test bed ended: %w", b.err)
			}
			if host, found := strings.CutPrefix(line, "registry: "); found {
				b.Registry = host
			}
			if path, found := strings.CutPrefix(line, "export KUBECONFIG="); found {
				b.Kubeconfig = path
				go discard(lines)
				return nil
			}
			fmt.Fprintln(log, line)
		}
	}
}

func discard(lines <-chan string) {
	for range lines {
	}
}

// bedStops is how long a cluster may take to end.
const bedStops = 30 * time.Second

// Stop ends the cluster and waits for it.
func (b *TestBed) Stop() error {
	_ = b.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-b.ended:
	case <-time.After(bedStops):
		_ = b.cmd.Process.Kill()
		<-b.ended
	}
	if b.err != nil {
		return fmt.Errorf("test bed: %w", b.err)
	}
	return nil
}
