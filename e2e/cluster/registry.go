package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
)

// Registry is an OCI registry in this process, on a free port of 127.0.0.1, with its blobs in a folder. Pods of a
// cluster that was started with it pull under the same name that the host pushes to.
type Registry struct {
	host    string
	backend *olareg.Server
	close   sync.Once
	err     error

	mu     sync.Mutex
	server *http.Server // nil while it is down
	served sync.WaitGroup
}

// StartRegistry serves a registry that keeps its content below dir, which one process may use at a time. It runs until Close.
func StartRegistry(ctx context.Context, dir string) (*Registry, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	backend := olareg.New(config.Config{Storage: config.ConfigStorage{StoreType: config.StoreDir, RootDir: dir, GC: config.ConfigGC{Frequency: -1}}})
	r := &Registry{host: listener.Addr().String(), backend: backend}
	r.serve(listener)
	return r, nil
}

// serve answers until Down or Close; mu is held, or nobody else knows of r.
func (r *Registry) serve(listener net.Listener) {
	server := &http.Server{Handler: inTurn(r.backend), ReadHeaderTimeout: 10 * time.Second}
	r.server = server
	r.served.Go(func() { _ = server.Serve(listener) }) // ends with ErrServerClosed
}

// Down makes the registry unreachable; what it holds stays.
func (r *Registry) Down() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == nil {
		return nil
	}
	err := r.server.Close()
	r.server = nil
	r.served.Wait()
	return err
}

// Up ends Down, on the same address.
func (r *Registry) Up(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != nil {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.host)
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	r.serve(listener)
	return nil
}

// Host returns 127.0.0.1:PORT: the registry part of image names.
func (r *Registry) Host() string { return r.host }

// Close stops serving; the content stays in the folder. It may be called more than once.
func (r *Registry) Close() error {
	r.close.Do(func() {
		if err := r.Down(); err != nil {
			r.err = fmt.Errorf("registry %s: %w", r.host, err)
		}
		// It fails for repositories that were only asked for and never written. What was pushed is on disk since the
		// push was answered, so that nothing is lost by an error here.
		_ = r.backend.Close()
	})
	return r.err
}
