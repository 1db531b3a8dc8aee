package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// namespaceRunner runs roles inside the namespaces of a node, through its process 1 (role node-init). When that is
// killed the kernel ends everything inside: containers, mounts and the network go with it.
type namespaceRunner struct {
	host    *hostRunner // runs node-init
	control string      // socket of node-init
	logs    string
	paths   map[string]string // programs by role; any other role is one of binary
	binary  string
	env     []string
}

const roleNodeInit = "node-init"

// namespaces that a node has of its own.
const namespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS

// nodeInitConfig mirrors nodeConfig of the role binary.
type nodeInitConfig struct {
	Hostname string        `json:"hostname"`
	Address  string        `json:"address"`
	Gateway  string        `json:"gateway"`
	Scratch  string        `json:"scratch"`
	Control  string        `json:"control"`
	Forward  []nodeForward `json:"forward"`
}

type nodeForward struct {
	ListenNetwork string `json:"listenNetwork"`
	Listen        string `json:"listen"`
	DialNetwork   string `json:"dialNetwork"`
	Dial          string `json:"dial"`
}

type initRequest struct {
	Op   string   `json:"op"`
	Name string   `json:"name"`
	Path string   `json:"path,omitempty"`
	Args []string `json:"args,omitempty"`
	Env  []string `json:"env,omitempty"`
	Log  string   `json:"log,omitempty"`
}

type initAnswer struct {
	Error  string   `json:"error"`
	Exited []string `json:"exited"`
}

// open makes the namespaces and waits until their process 1 takes requests.
func (r *namespaceRunner) open(ctx context.Context, dir string, cfg nodeInitConfig) error {
	b, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return fmt.Errorf("node-init: %w", err)
	}
	path := filepath.Join(dir, "node-init.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("node-init: %w", err)
	}
	sys := &syscall.SysProcAttr{Cloneflags: namespaces}
	if err := r.host.spawn(roleNodeInit, sys, path); err != nil {
		return fmt.Errorf("namespaces: %w (a real node needs root)", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := r.ask(ctx, initRequest{Op: "exited"}); err == nil {
			return nil
		}
		if len(r.host.exited()) > 0 {
			return fmt.Errorf("namespaces: %s", logTail(r.logs, roleNodeInit, 4))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("namespaces: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// ask sends one request on a connection of its own.
func (r *namespaceRunner) ask(ctx context.Context, q initRequest) (initAnswer, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", r.control)
	if err != nil {
		return initAnswer{}, fmt.Errorf("node-init: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return initAnswer{}, fmt.Errorf("node-init: %w", err)
	}
	var a initAnswer
	if err := errors.Join(json.NewEncoder(conn).Encode(q), json.NewDecoder(conn).Decode(&a)); err != nil {
		return initAnswer{}, fmt.Errorf("node-init: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func (r *namespaceRunner) start(ctx context.Context, role string, args ...string) error {
	q := initRequest{Op: "start", Name: role, Path: r.binary, Args: append([]string{role}, args...), Env: r.env, Log: filepath.Join(r.logs, role+".log")}
	if path, ok := r.paths[role]; ok {
		q.Path, q.Args = path, args
	}
	_, err := r.ask(ctx, q)
	return err
}

func (r *namespaceRunner) kill(role string) error {
	_, err := r.ask(context.Background(), initRequest{Op: "kill", Name: role})
	return err
}

func (r *namespaceRunner) exited() []string {
	if dead := r.host.exited(); len(dead) > 0 {
		return dead
	}
	a, err := r.ask(context.Background(), initRequest{Op: "exited"})
	if err != nil {
		return nil // the next poll sees node-init gone, if it is
	}
	return a.Exited
}

func (r *namespaceRunner) stop() error { return r.host.stop() }

// relay carries connections from one address to another until it is closed.
type relay struct {
	listener net.Listener
	network  string // dialed
	address  string
	serving  sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

func newRelay(ctx context.Context, listenNetwork, listen, dialNetwork, dial string) (*relay, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, listenNetwork, listen)
	if err != nil {
		return nil, fmt.Errorf("relay to %s: %w", dial, err)
	}
	r := &relay{listener: l, network: dialNetwork, address: dial, open: map[net.Conn]bool{}}
	r.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			r.serving.Go(func() { r.carry(conn) })
		}
	})
	return r, nil
}

func (r *relay) carry(in net.Conn) {
	defer r.drop(in)
	out, err := net.Dial(r.network, r.address)
	if err != nil {
		return // the caller sees its connection end
	}
	defer r.drop(out)
	if !r.keep(in) || !r.keep(out) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { copyHalf(out, in) })
	both.Go(func() { copyHalf(in, out) })
	both.Wait()
}

// copyHalf copies until src ends and then ends the writing half of dst.
func copyHalf(dst, src net.Conn) {
	_, _ = io.Copy(dst, src) // an error ends the connection like an end of file
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

func (r *relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.open[c] = true
	}
	return !r.closed
}

func (r *relay) drop(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
	_ = c.Close()
}

func (r *relay) close() error {
	err := r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for c := range r.open {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.serving.Wait()
	return err
}
