package render

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

const (
	rendersPerChild = 500 // then a fresh child: kustomize and Helm keep state for the life of a process
	sampleEvery     = 20 * time.Millisecond
	endGrace        = 2 * time.Second
)

// process is a running child.
type process struct {
	command *exec.Cmd
	pipe    *pipe
	stdin   interface{ Close() error }
	renders int
}

// spawner starts children from one thread that lives as long as the Renderer:
// Linux kills a child with Pdeathsig when the thread that started it ends.
type spawner struct {
	requests chan func()
	done     sync.WaitGroup
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan func())}
	s.done.Go(func() {
		lockThread()
		for request := range s.requests {
			request()
		}
	})
	return s
}

func (s *spawner) end() {
	close(s.requests)
	s.done.Wait()
}

// start starts a child with an environment of its own: nothing of the parent's reaches a template.
func (s *spawner) start(command []string) (*process, error) {
	child := exec.Command(command[0], command[1:]...)
	child.Env = []string{"PATH=", "HOME=/nonexistent"}
	dieWithParent(child)
	stdin, err := child.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	s.requests <- func() { started <- child.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("renderer: child process: %w", err)
	}
	return &process{command: child, pipe: newPipe(stdout, stdin), stdin: stdin}, nil
}

// end closes the child's input, which ends it, and kills it when that does not help.
func (p *process) end() {
	_ = p.stdin.Close()
	timer := time.AfterFunc(endGrace, func() { _ = p.command.Process.Kill() })
	_ = p.command.Wait() // how it ended is of no interest: it has no work
	timer.Stop()
}

func (p *process) kill() {
	_ = p.command.Process.Kill()
	_ = p.stdin.Close()
	_ = p.command.Wait()
}

// work renders spec in a child and returns the objects as JSON. A child that
// had to be killed, or that died, is replaced at the next render.
func (r *Renderer) work(ctx context.Context, spec Spec, reader *recorder) ([]byte, error) {
	var child *process
	select {
	case slot, open := <-r.slots:
		if !open {
			return nil, errors.New("renderer: closed")
		}
		child = slot
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if child != nil && child.renders >= rendersPerChild {
		child.end()
		child = nil
	}
	if child == nil {
		started, err := r.spawner.start(r.options.Command)
		if err != nil {
			r.slots <- nil
			return nil, err
		}
		child = started
	}
	child.renders++
	content, alive, err := r.converse(ctx, child, spec, reader)
	if !alive {
		child.kill()
		child = nil
	}
	r.slots <- child
	return content, err
}

// converse runs one render under its limits. alive is false when the child must not be used again.
func (r *Renderer) converse(ctx context.Context, child *process, spec Spec, reader *recorder) (content []byte, alive bool, err error) {
	limited, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	var overMemory atomic.Bool
	var watching sync.WaitGroup
	stop := make(chan struct{})
	watching.Go(func() { r.watch(limited, child, stop, &overMemory) })
	content, alive, err = dialogue(child.pipe, message{Op: opRender, Spec: &spec, Memory: r.options.MemoryBytes}, reader)
	close(stop)
	watching.Wait()
	switch {
	case alive && (limited.Err() == nil || err == nil):
		// A limit that was reached after the answer has killed the child, not the answer. One that comes near it goes, too:
		// what it has not given back would count against the next render.
		return content, limited.Err() == nil && residentBytes(child.command.Process.Pid) <= r.options.MemoryBytes/2 && !overMemory.Load(), err
	case ctx.Err() != nil:
		return nil, false, ctx.Err()
	case overMemory.Load():
		cause := limitf("rendering took more than %d MiB of memory: the limit", r.options.MemoryBytes>>20)
		return nil, false, &Error{Path: spec.Path, Cause: cause}
	case limited.Err() != nil:
		return nil, false, &Error{Path: spec.Path, Cause: limitf("rendering took longer than %s: the limit", r.options.Timeout)}
	}
	return nil, false, err
}

// watch kills the child at the end of ctx or when its memory is over the limit.
func (r *Renderer) watch(ctx context.Context, child *process, stop <-chan struct{}, overMemory *atomic.Bool) {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			_ = child.command.Process.Kill()
			return
		case <-ticker.C:
			if residentBytes(child.command.Process.Pid) > r.options.MemoryBytes {
				overMemory.Store(true)
				_ = child.command.Process.Kill()
				return
			}
		}
	}
}

// errDied says that the pipe to a child broke.
var errDied = errors.New("renderer: the child process ended")

// dialogue sends the render and answers the child until it is done. A child
// that is left in the middle of a render, or that breaks the protocol, is not alive.
func dialogue(pipe *pipe, request message, reader *recorder) (content []byte, alive bool, err error) {
	if err := pipe.send(request, nil); err != nil {
		return nil, false, errDied
	}
	for {
		head, payload, err := pipe.receive()
		if err != nil {
			return nil, false, errDied
		}
		switch head.Op {
		case opStat, opRead, opList:
			answer, content, err := reader.answer(head)
			if err != nil {
				return nil, false, err
			}
			if err := pipe.send(answer, content); err != nil {
				return nil, false, errDied
			}
		case opDone:
			return payload, true, nil
		case opFailed:
			if head.Failure == nil {
				return nil, false, errors.New("renderer: the child process broke the protocol")
			}
			return nil, true, head.Failure.err()
		default:
			return nil, false, errors.New("renderer: the child process broke the protocol")
		}
	}
}
