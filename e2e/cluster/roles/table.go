package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
)

// request is one line of JSON on the control socket; the answer is one line, too.
type request struct {
	Op   string   `json:"op"` // start, kill, exited
	Name string   `json:"name"`
	Path string   `json:"path"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Log  string   `json:"log"`
}

type answer struct {
	Error  string   `json:"error,omitempty"`
	Exited []string `json:"exited,omitempty"`
}

// table holds the processes that were started on request. Process 1 must reap every orphan, so that it waits for any child
// in one place and not with os/exec, which waits for its own.
type table struct {
	mu      sync.Mutex
	running map[string]*process
}

type process struct {
	pid    int
	done   chan struct{}
	killed bool
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (t *table) reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for range children {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err == syscall.EINTR {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			t.mu.Lock() // start holds it until the process is in the table
			for _, p := range t.running {
				if p.pid == pid && !p.ended() {
					close(p.done)
				}
			}
			t.mu.Unlock()
		}
	}
}

func (t *table) serve(conn net.Conn) {
	defer conn.Close()
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	for {
		var r request
		if err := in.Decode(&r); err != nil {
			return
		}
		if err := out.Encode(t.do(r)); err != nil {
			return
		}
	}
}

func (t *table) do(r request) answer {
	var a answer
	var err error
	switch r.Op {
	case "start":
		err = t.start(r)
	case "kill":
		err = t.kill(r.Name)
	case "exited":
		a.Exited = t.exited()
	default:
		err = fmt.Errorf("unknown request %q", r.Op)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func (t *table) start(r request) error {
	log, err := os.OpenFile(r.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.running[r.Name]; p != nil && !p.ended() {
		return fmt.Errorf("%s: already running", r.Name)
	}
	pid, err := syscall.ForkExec(r.Path, append([]string{r.Path}, r.Args...), &syscall.ProcAttr{
		Env:   r.Env,
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
	})
	if err != nil {
		return fmt.Errorf("%s: %w", r.Path, err)
	}
	t.running[r.Name] = &process{pid: pid, done: make(chan struct{})}
	return nil
}

func (t *table) kill(name string) error {
	t.mu.Lock()
	p := t.running[name]
	if p == nil || p.ended() {
		t.mu.Unlock()
		return fmt.Errorf("%s: not running", name)
	}
	p.killed = true
	err := syscall.Kill(p.pid, syscall.SIGKILL)
	t.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	<-p.done
	return nil
}

func (t *table) exited() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for name, p := range t.running {
		if p.ended() && !p.killed {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// pipe copies until src ends and then ends the writing half of dst.
func pipe(dst, src net.Conn) {
	_, _ = io.Copy(dst, src) // an error ends the connection like an end of file
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
