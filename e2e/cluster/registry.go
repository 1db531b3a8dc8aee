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
	server  *http.Server
	backend *olareg.Server
	served  sync.WaitGroup
	close   sync.Once
	err     error
}

// StartRegistry serves a registry that keeps its content below dir, which one process may use at a time. It runs until Close.
func StartRegistry(ctx context.Context, dir string) (*Registry, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	backend := olareg.New(config.Config{Storage: config.ConfigStorage{StoreType: config.StoreDir, RootDir: dir, GC: config.ConfigGC{Frequency: -1}}})
	r := &Registry{
		host:    listener.Addr().String(),
		backend: backend,
		server:  &http.Server{Handler: inTurn(backend), ReadHeaderTimeout: 10 * time.Second},
	}
	r.served.Go(func() { _ = r.server.Serve(listener) }) // ends with ErrServerClosed
	return r, nil
}

// Host returns 127.0.0.1:PORT: the registry part of image names.
func (r *Registry) Host() string { return r.host }

// Close stops serving; the content stays in the folder. It may be called more than once.
func (r *Registry) Close() error {
	r.close.Do(func() {
		if err := r.server.Close(); err != nil {
			r.err = fmt.Errorf("registry %s: %w", r.host, err)
		}
		r.served.Wait()
		// It fails for repositories that were only asked for and never written. What was pushed is on disk since the
		// push was answered, so that nothing is lost by an error here.
		_ = r.backend.Close()
	})
	return r.err
}
