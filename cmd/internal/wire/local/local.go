// Package local runs everything that Slipway needs besides a cluster in one
// process, on loopback: a Git host with the environment repository, a registry,
// the server, and the agent of one cluster.
//
// It is for one person on one machine. Whoever can reach the loopback addresses
// can push. All that must last is below one folder; the same code, with other
// addresses, is what runs apart in a company.
package local

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/cmd/internal/wire/server"
	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge/bare"
)

// Names that do not change, so that what points at them stays right.
const (
	Repository = "environments" // on the Git host
	Branch     = "main"
	AgentUser  = "slipway-agent" // of the cluster; has the agent's rights and no others
)

// DefaultPort is that of the Git host; server and registry have the two that follow.
const DefaultPort = 4780

// Options of one Local.
type Options struct {
	Config    *rest.Config // of an administrator, who may impersonate AgentUser
	Cluster   string       // name under clusters/ in the environment repository
	Namespace string       // of the Applications
	Data      string       // folder for everything that lasts
	// Port of the Git host on 127.0.0.1, which server and registry follow; default
	// DefaultPort. It stands in the cluster and in image names, so keep it.
	Port int
	// Registry is HOST:PORT of one that runs already; empty starts one.
	Registry string
	Metrics  string // address of /metrics, /healthz and /readyz; "0" for none
	// AllowUnisolated lets steps of pipelines run as plain processes where this machine cannot isolate them.
	AllowUnisolated bool
	// Starter is what an empty environment repository begins with.
	Starter []gitsource.Change
	// Install returns the objects that the cluster needs, of which the GitSource names url.
	Install func(url string) ([]*unstructured.Unstructured, error)
	Log     logr.Logger
}

// Local is everything, listening and ready to run.
type Local struct {
	GitURL      string // of the environment repository
	ServerURL   string
	ServerTrust string // PEM file with the authority of the server's certificate
	Registry    string // HOST:PORT, the first part of image names
	Begun       bool   // by this start: the environment repository was empty
	SigningKey  string // PEM file with the public key of what is built here
	NotBuilding string // why pushes are not built; empty if they are

	lock     *os.File
	server   *server.Server
	agent    *wire.Agent
	services []*service
}

// Start starts the Git host and the registry, fills the environment repository
// if it is empty, enrols the agent's key in it, installs what the cluster needs,
// and wires server and agent. Everything may be there already.
func Start(ctx context.Context, o Options) (*Local, error) {
	if o.Config == nil || o.Cluster == "" || o.Namespace == "" || o.Data == "" || o.Install == nil {
		return nil, errors.New("local: config, cluster, namespace, data and install are required")
	}
	o.Port = cmp.Or(o.Port, DefaultPort)
	l := &Local{}
	if err := l.start(ctx, o); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *Local) start(ctx context.Context, o Options) (err error) {
	if l.lock, err = lock(o.Data); err != nil {
		return err
	}
	hub := console.NewHub(0)
	if err := l.startGit(ctx, o, hub); err != nil {
		return err
	}
	if err := l.startRegistry(ctx, o); err != nil {
		return err
	}
	key, err := agentKey(filepath.Join(o.Data, "agent-key.pem"))
	if err != nil {
		return err
	}
	if l.Begun, err = prepare(ctx, o, l.GitURL, key.Public().(ed25519.PublicKey)); err != nil { //nolint:forcetypeassert // of an Ed25519 key
		return err
	}
	objects, err := o.Install(l.GitURL)
	if err != nil {
		return err
	}
	if err := install(ctx, o.Config, objects); err != nil {
		return err
	}
	return l.startLoops(ctx, o, hub, key)
}

// lock keeps a second process out of the folder; the kernel lifts it when this one ends, however it ends.
func lock(data string) (*os.File, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("data folder %s: another process uses it (end that one, or choose another folder and port)", data), file.Close())
	}
	return file, nil
}

func (l *Local) startGit(ctx context.Context, o Options, hub *console.Hub) error {
	host, err := bare.New(bare.Options{Root: filepath.Join(o.Data, "git"), CreateOnPush: true, OnPush: func(push bare.Push) {
		if push.Repo == Repository {
			hub.Publish(console.Nudge{URL: l.GitURL, Ref: push.Ref})
			return
		}
		l.pushed(push, o.Log)
	}})
	if err != nil {
		return err
	}
	if err := host.Create(ctx, Repository); err != nil {
		return err
	}
	address := at(o.Port)
	l.GitURL = "http://" + address + "/" + Repository + ".git"
	return l.serve(ctx, "git host", address, host)
}

func at(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (l *Local) startRegistry(ctx context.Context, o Options) error {
	if l.Registry = o.Registry; l.Registry != "" {
		return nil
	}
	l.Registry = at(o.Port + 2)
	handler, close := registry(filepath.Join(o.Data, "registry"))
	if err := l.serve(ctx, "registry", l.Registry, handler); err != nil {
		return errors.Join(err, close())
	}
	l.services[len(l.services)-1].after = close
	return nil
}

func (l *Local) startLoops(ctx context.Context, o Options, hub *console.Hub, key ed25519.PrivateKey) error {
	config, trust, err := server.SelfSigned(filepath.Join(o.Data, "tls"), []string{"localhost", "127.0.0.1"})
	if err != nil {
		return err
	}
	options := server.Options{
		Repositories: []server.Repository{{URL: l.GitURL}}, Branch: Branch, Listen: at(o.Port + 1), TLS: config,
		Data: filepath.Join(o.Data, "server"), Metrics: o.Metrics, Hub: hub, Registry: metrics.Registry, Log: o.Log.WithName("server"),
	}
	if options.CommitKey, err = agentKey(filepath.Join(o.Data, "commit-key.pem")); err != nil {
		return err
	}
	if err := l.build(ctx, o, &options); err != nil {
		return err
	}
	if l.server, err = server.New(ctx, options); err != nil {
		return err
	}
	l.ServerURL, l.ServerTrust = "https://"+l.server.Address(), trust
	client, err := server.Trusting(trust)
	if err != nil {
		return err
	}
	asAgent := rest.CopyConfig(o.Config)
	asAgent.Impersonate = rest.ImpersonationConfig{UserName: AgentUser}
	l.agent, err = wire.NewAgent(ctx, wire.AgentOptions{
		Config: asAgent, Cluster: o.Cluster, Namespace: o.Namespace, CacheDir: filepath.Join(o.Data, "agent"),
		Metrics: "0", Health: "0", Server: l.ServerURL, Key: key, HTTP: client, Log: o.Log.WithName("agent"),
	})
	return err
}

// Run runs until ctx ends or a part fails, and then ends all parts.
func (l *Local) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{"server": l.server.Run, "agent": l.agent.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", name, err))
				return
			}
			cancel(context.Canceled) // one never ends alone without the other
		})
	}
	for _, s := range l.services {
		go func() {
			select {
			case <-ctx.Done():
			case <-s.ended:
				cancel(fmt.Errorf("%s: %w", s.name, s.err))
			}
		}()
	}
	running.Wait()
	err := l.close()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return errors.Join(cause, err)
	}
	return err
}

// close ends what Run does not own, the registry before the Git host.
func (l *Local) close() error {
	var all []error
	if l.server != nil {
		l.server.Close()
	}
	for i := len(l.services) - 1; i >= 0; i-- {
		all = append(all, l.services[i].close())
	}
	if l.lock != nil {
		all = append(all, l.lock.Close())
	}
	return errors.Join(all...)
}

// service is one HTTP server.
type service struct {
	name   string
	server *http.Server
	after  func() error // may be nil
	ended  chan struct{}
	err    error
}

func (l *Local) serve(ctx context.Context, name, address string, handler http.Handler) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w (end what uses the port, or choose another one and another folder)", name, err)
	}
	s := &service{name: name, ended: make(chan struct{}), server: &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}}
	l.services = append(l.services, s)
	go func() {
		defer close(s.ended)
		s.err = s.server.Serve(listener)
	}()
	return nil
}

// shutdown is how long a push may take to end.
const shutdown = 5 * time.Second

func (s *service) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdown)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = s.server.Close()
	}
	<-s.ended
	if s.after != nil {
		_ = s.after() // fails for repositories that were asked for and never written; what was pushed is on disk
	}
	return err
}
