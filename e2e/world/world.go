// Package world sets up all that the whole-system tests and the demo play with:
// a real Kubernetes, a registry, a Git host with an environment repo, and the
// shipped binaries as processes of their own.
//
// It observes through the API server and Git only, as a user would.
package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/gitsource/forge/bare"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/manifests/install"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Names in every World.
const (
	ClusterName = "demo"
	Namespace   = "slipway-system"
	Branch      = "main"
	AgentUser   = "slipway-agent"
	repository  = "fleet"
)

// Options of a World.
type Options struct {
	Dir      string           // for everything; kept by Stop
	Node     cluster.NodeKind // what runs the pods
	Nodes    int              // simulated ones; default 1
	AuditLog bool             // of the API server
	Ports    []int            // of a real node, to be reached from here
	Bin      string           // folder with binaries that were built already; may be empty
	Log      io.Writer        // progress lines
}

// World is everything, running.
type World struct {
	Dir      string
	Cluster  *cluster.Cluster
	Registry *cluster.Registry
	Kube     client.WithWatch // as administrator
	Repo     *gogit.Store     // the environment repo, as a person's clone
	URL      string           // of the environment repo

	environments *Repository
	secret       string // that the agent reads it with; empty for none

	bin       string
	log       io.Writer
	host      *bare.Host
	address   string
	mu        sync.Mutex
	serving   *http.Server
	processes []*Process
	pushed    func(bare.Push)
	hooks     hooks
	building  sync.Mutex
	built     map[string]string // binaries by name
	serial    atomic.Int64      // of processes that are started more than once
}

// Start starts the registry, the Git host with an empty environment repo, and the
// cluster. What is installed and pushed, and which processes run, is up to the caller.
func Start(ctx context.Context, o Options) (*World, error) {
	if o.Dir == "" {
		return nil, errors.New("world: a folder is required")
	}
	w := &World{Dir: o.Dir, bin: o.Bin, log: o.Log}
	if err := w.start(ctx, o); err != nil {
		return nil, errors.Join(err, w.Stop())
	}
	return w, nil
}

func (w *World) start(ctx context.Context, o Options) (err error) {
	if w.Registry, err = cluster.StartRegistry(ctx, filepath.Join(w.Dir, "registry")); err != nil {
		return err
	}
	w.host, err = bare.New(bare.Options{Root: filepath.Join(w.Dir, "git"), OnPush: w.onPush})
	if err != nil {
		return err
	}
	if err := w.StartHost(); err != nil {
		return err
	}
	if w.environments, err = w.repository(ctx, repository); err != nil {
		return err
	}
	w.URL, w.Repo = w.environments.URL, w.environments.Store
	w.Cluster, err = cluster.Start(ctx, cluster.Options{
		Dir: filepath.Join(w.Dir, "cluster"), Name: filepath.Base(w.Dir), Node: o.Node, KwokNodes: o.Nodes, AuditLog: o.AuditLog, Ports: o.Ports, Registry: w.Registry, Log: o.Log,
	})
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), apiextensionsv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	w.Kube, err = client.NewWithWatch(w.Cluster.RESTConfig(), client.Options{Scheme: scheme})
	return err
}

// StartHost makes the Git host answer, on the same address each time.
func (w *World) StartHost() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.serving != nil {
		return nil
	}
	if w.address == "" {
		w.address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", w.address) //nolint:noctx // it ends with StopHost
	if err != nil {
		return fmt.Errorf("git host: %w", err)
	}
	w.address = listener.Addr().String()
	w.serving = &http.Server{Handler: http.HandlerFunc(w.serve), ReadHeaderTimeout: 10 * time.Second}
	go func(server *http.Server) { _ = server.Serve(listener) }(w.serving)
	return nil
}

// StopHost makes the Git host unreachable; what it holds stays.
func (w *World) StopHost() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.serving == nil {
		return nil
	}
	server := w.serving
	w.serving = nil
	return server.Close()
}

// OnPush calls f for every push from now on.
func (w *World) OnPush(f func(bare.Push)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pushed = f
}

func (w *World) onPush(push bare.Push) {
	w.mu.Lock()
	f := w.pushed
	w.mu.Unlock()
	if f != nil {
		f(push)
	}
}

// GitDir is the bare repository on the host.
func (w *World) GitDir() string { return w.environments.Dir }

// Install applies what `slipway install` prints, as the administrator.
func (w *World) Install(ctx context.Context) error {
	objects, err := install.Manifests(install.Options{
		Cluster: ClusterName, URL: w.URL, Branch: Branch, Path: "clusters/" + ClusterName, Namespace: Namespace, AgentUser: AgentUser, SecretName: w.secret,
	})
	if err != nil {
		return err
	}
	for _, object := range objects {
		if object.GetKind() == "GitSource" {
			// Nothing nudges an agent alone; people who watch should not wait a minute.
			object.Object["spec"].(map[string]any)["interval"] = "1s"
		}
		apply := func() error {
			return w.Kube.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("slipway-install"), client.ForceOwnership)
		}
		// A custom resource right after its definition: discovery may lag behind by a moment.
		if err := eventually(ctx, 30*time.Second, apply); err != nil {
			return fmt.Errorf("install %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	// An agent that starts now asks for all kinds, and ends where one is not known yet.
	return eventually(ctx, 30*time.Second, func() error {
		for _, kind := range []string{"Application", "ApplicationSet", "Rollout", "GitSource", "OCISource", "ChartSource", "Notification", "ImagePolicy", "Inventory"} {
			if _, err := w.Kube.RESTMapper().RESTMapping(schema.GroupKind{Group: v1alpha1.Group, Kind: kind}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Stop ends every process, the cluster, the Git host and the registry.
func (w *World) Stop() error {
	var all []error
	w.mu.Lock()
	processes := w.processes
	w.processes = nil
	w.mu.Unlock()
	for _, process := range processes {
		process.Kill()
	}
	all = append(all, w.StopHost())
	if w.Cluster != nil {
		all = append(all, w.Cluster.Stop())
	}
	if w.Registry != nil {
		all = append(all, w.Registry.Close())
	}
	return errors.Join(all...)
}

// eventually calls f until it succeeds, at most for the given time.
func eventually(ctx context.Context, atMost time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// Eventually waits until f is happy; its error then says what is still missing.
func Eventually(ctx context.Context, atMost time.Duration, f func() error) error {
	if err := eventually(ctx, atMost, f); err != nil {
		return fmt.Errorf("not within %s: %w", atMost, err)
	}
	return nil
}

// folder makes and returns a folder of the World.
func (w *World) folder(name string) (string, error) {
	dir := filepath.Join(w.Dir, name)
	return dir, os.MkdirAll(dir, 0o700)
}
