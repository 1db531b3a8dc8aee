package prometheus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Options of a Server.
type Options struct {
	// Dir is empty, or that of a Server that was stopped: then its data are there again.
	Dir string
	// Targets are scraped every second at /metrics, HOST:PORT each.
	Targets []string
	// Web is the content of --web.config.file, for TLS and passwords; empty for plain HTTP without.
	Web string
	// Ready is how readiness is asked for; http.DefaultClient when nil.
	Ready *http.Client
	// Address is where to listen; empty for a free port of 127.0.0.1.
	Address string
	// Log says what takes long; nil for nowhere.
	Log io.Writer
}

// Server is a running Prometheus.
type Server struct {
	// Address is HOST:PORT.
	Address string
	cmd     *exec.Cmd
	done    chan struct{}
	out     *output
}

// started bounds the start of a program that takes 0.2 s where nothing else runs.
const started = 60 * time.Second

// Start returns a Server that answers queries.
func Start(ctx context.Context, options Options) (*Server, error) {
	if options.Log == nil {
		options.Log = io.Discard
	}
	path, err := program(ctx, options.Log)
	if err != nil {
		return nil, err
	}
	args, err := options.prepare()
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	s := &Server{Address: options.Address, done: make(chan struct{}), out: &output{}}
	s.cmd = exec.CommandContext(ctx, path, append(args, "--web.listen-address="+s.Address)...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = s.out, s.out, options.Dir
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begun := make(chan error)
	// The kernel sends Pdeathsig when the thread ends that started the child, so that thread waits for it.
	go func() {
		runtime.LockOSThread()
		defer close(s.done)
		err := s.cmd.Start()
		begun <- err
		if err == nil {
			_ = s.cmd.Wait() // it is ended by us, or says in its output why it ended
		}
	}()
	if err := <-begun; err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	if err := s.wait(ctx, options); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// prepare writes the configuration and chooses an address.
func (o *Options) prepare() ([]string, error) {
	config := "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: test\n  static_configs:\n  - targets: ["
	for i, target := range o.Targets {
		if i > 0 {
			config += ", "
		}
		config += strconv.Quote(target)
	}
	file := filepath.Join(o.Dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config+"]\n"), 0o600); err != nil {
		return nil, err
	}
	args := []string{"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(o.Dir, "data"), "--log.level=warn"}
	if o.Web != "" {
		web := filepath.Join(o.Dir, "web.yml")
		if err := os.WriteFile(web, []byte(o.Web), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--web.config.file="+web)
	}
	if o.Address == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		o.Address = l.Addr().String()
		return args, l.Close()
	}
	return args, nil
}

func (s *Server) wait(ctx context.Context, options Options) error {
	client, scheme := http.DefaultClient, "http"
	if options.Ready != nil {
		client, scheme = options.Ready, "https"
	}
	ctx, cancel := context.WithTimeout(ctx, started)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+s.Address+"/-/ready", nil)
		if err != nil {
			return fmt.Errorf("prometheus: %w", err)
		}
		response, err := client.Do(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK || response.StatusCode == http.StatusUnauthorized {
				return nil
			}
		}
		select {
		case <-s.done:
			return fmt.Errorf("prometheus: it ended: %s", s.out)
		case <-ctx.Done():
			return fmt.Errorf("prometheus: not ready: %w: %s", errors.Join(ctx.Err(), err), s.out)
		case <-tick.C:
		}
	}
}

// Kill ends it at once, as a crash does.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// output is safe while the process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
