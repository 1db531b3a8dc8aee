// Package server turns the options of slipway-server into the running API. It is
// apart from package wire, because the agent must not contain code that promotes.
package server

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/promoter"
	"github.com/slipway-cd/slipway/reconciler"
)

// Repository is an environment repository that a server writes reverts to.
type Repository struct {
	URL      string // spelled as in the GitSources of the agents
	Branch   string // that is written to; default that of the Options
	Host     string // kind of the Git host, for its pull requests and statuses; empty for none
	Username string
	Password policy.Secret // empty for none
}

// Registry takes collectors and gives what they count.
type Registry interface {
	prometheus.Registerer
	prometheus.Gatherer
}

// Options say how one server runs.
type Options struct {
	Repositories []Repository
	Branch       string // that agents follow; default "main"
	Listen       string // address of the API
	// TLS of the API; nil for plain HTTP, which only a loopback address may speak.
	TLS     *tls.Config
	Data    string        // stores; may be lost at any time
	Metrics string        // address of /metrics, /healthz and /readyz without TLS; "0" for none
	Poll    time.Duration // between two looks at the refs; 0 if Hub hears of every push
	Hub     *console.Hub  // default: one of its own
	// CommitKey signs the commits that this server makes; nil for none.
	CommitKey ed25519.PrivateKey
	// Build is the half that makes images; nil for none.
	Build *Build
	// Registry of the collectors; default one of its own.
	Registry Registry
	Log      logr.Logger
}

// Server is the API with everything behind it, listening and ready to run.
type Server struct {
	console *console.Server
	api     *http.Server
	probes  *http.Server // nil for none
	tls     bool         // of the API; net/http fills its own field also without
	address net.Addr
	listens []net.Listener
	serve   []func() error
	pollers []console.Poller
	heralds []*herald
	diff    *wire.RenderedDiff
	build   *building // nil for none
	log     logr.Logger
}

// New opens the stores and listens. It speaks to no Git host yet.
func New(ctx context.Context, o Options) (_ *Server, err error) {
	if o.TLS == nil && !loopback(o.Listen) {
		return nil, fmt.Errorf("server: plain HTTP on %s: only a loopback address may speak it, because answers are not signed (give a certificate)", o.Listen)
	}
	o.Branch = cmp.Or(o.Branch, "main")
	if o.Hub == nil {
		o.Hub = console.NewHub(0)
	}
	if o.Registry == nil {
		own := prometheus.NewRegistry()
		o.Registry = own
		own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	s := &Server{log: o.Log}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	known, err := o.repositories()
	if err != nil {
		return nil, err
	}
	clones := newStores(o.Data, known)
	if clones.sign, err = wire.Signing(o.CommitKey); err != nil {
		return nil, err
	}
	if s.diff, err = wire.NewRenderedDiff(o.Data, o.Registry); err != nil {
		return nil, err
	}
	var sources sourceHosts
	if o.Build != nil {
		if sources, err = newSourceHosts(o.Build.Config.Sources); err != nil {
			return nil, err
		}
	}
	var repositories []console.Repository
	var traced []console.TracedRepo
	writers, agents := map[string]*promoter.Promoter{}, &enrolled{}
	for _, r := range o.Repositories {
		store, err := clones.store(ctx, r.URL)
		if err != nil {
			return nil, err
		}
		r.Branch = cmp.Or(r.Branch, o.Branch)
		writer, err := s.writer(o, r, store, clones, sources)
		if err != nil {
			return nil, err
		}
		writers[r.URL] = writer
		agents.repos = append(agents.repos, &enrolling{store: store, branch: r.Branch})
		traced = append(traced, console.TracedRepo{URL: r.URL, Branch: r.Branch, Repo: store})
		repositories = append(repositories, console.Repository{URL: r.URL, Branch: r.Branch, Reverts: byPromoter{writer}})
		if o.Poll > 0 {
			s.pollers = append(s.pollers, console.Poller{URL: r.URL, Refs: store, Hub: o.Hub, Every: o.Poll, Log: o.Log})
		}
	}
	shows := console.Options{Repositories: repositories, Nudges: o.Hub, Metrics: o.Registry, Log: o.Log}
	if o.Build != nil {
		if shows.Tokens, err = readTokens(o.Build.Config.TokensFile); err != nil {
			return nil, err
		}
		if s.build, err = newBuilding(ctx, o, writers, clones, sources); err != nil {
			return nil, err
		}
		shows.Runs, shows.Control = shown{s.build.loop}, shown{s.build.loop}
		if shows.Hooks, err = s.build.hooks(o.Hub); err != nil {
			return nil, err
		}
	}
	shows.Tracer = console.Chains{Repos: traced, Runs: shows.Runs}
	agents.now = time.Now
	shows.Enrolled = agents
	s.console, err = console.New(shows)
	if err == nil {
		err = s.listen(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// writer makes what writes to an environment repo, and what tells its Git host of it.
func (s *Server) writer(o Options, r Repository, store *gogit.Store, clones *stores, sources sourceHosts) (*promoter.Promoter, error) {
	options := promoter.Options{Repo: stoppable{store}, Branch: r.Branch, URL: r.URL, Sources: clones, Diff: s.diff}
	host, err := r.host()
	if err != nil {
		return nil, err
	}
	if host == nil {
		return promoter.New(options)
	}
	options.Requests = host
	writer, err := promoter.New(options)
	s.heralds = append(s.heralds, &herald{
		url: r.URL, branch: r.Branch, promoter: writer, refs: store, sources: sources, hub: o.Hub, log: o.Log.WithName("githost"), requests: map[string]*asked{},
	})
	return writer, err
}

// readTokens reads who may use the API; no file means that only this machine may.
func readTokens(file string) ([]console.Token, error) {
	if file == "" {
		return nil, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	tokens, err := console.ParseTokens(content)
	if err != nil {
		return nil, fmt.Errorf("tokens %s: %w", file, err)
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("tokens %s: holds none (slipway-server token makes one)", file)
	}
	return tokens, nil
}

// repositories returns how the repositories that this server knows are reached.
func (o Options) repositories() (func(url string) (Repository, bool), error) {
	all := o.Repositories
	if o.Build == nil {
		return configured(all), nil
	}
	for _, source := range o.Build.Config.Sources {
		r, err := source.repository()
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	known := configured(all)
	return func(url string) (Repository, bool) {
		if r, found := known(url); found || o.Build.Local == nil {
			return r, found
		}
		_, local := o.Build.Local(url)
		return Repository{URL: url}, local
	}, nil
}

// open opens the store of r, in a folder that its URL names.
func (r Repository) open(ctx context.Context, data string, sign func([]byte) (string, error)) (*gogit.Store, error) {
	sum := sha256.Sum256([]byte(r.URL))
	options := gogit.Options{Dir: filepath.Join(data, "git", hex.EncodeToString(sum[:8])), URL: r.URL, Sign: sign}
	if r.Username != "" || !r.Password.Empty() {
		options.Auth = &gogit.Auth{Username: r.Username, Password: r.Password}
	}
	store, err := gogit.Open(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("repository: %w", err)
	}
	return store, nil
}

// listen opens the addresses, so that a port that is taken is told at once.
func (s *Server) listen(ctx context.Context, o Options) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("server: %w (choose another address)", err)
	}
	s.address, s.listens = listener.Addr(), []net.Listener{listener}
	s.api = s.serving(s.console.Handler())
	s.api.TLSConfig, s.tls = o.TLS, o.TLS != nil
	s.serve = append(s.serve, func() error {
		if o.TLS == nil {
			return s.api.Serve(listener)
		}
		return s.api.ServeTLS(listener, "", "")
	})
	if o.Metrics == "" || o.Metrics == "0" {
		return nil
	}
	plain, err := config.Listen(ctx, "tcp", o.Metrics)
	if err != nil {
		s.Close()
		return fmt.Errorf("server: metrics: %w (choose another address)", err)
	}
	s.listens = append(s.listens, plain)
	probes := s.console.Probes()
	probes.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{Registry: o.Registry}))
	s.probes = s.serving(probes)
	s.serve = append(s.serve, func() error { return s.probes.Serve(plain) })
	return nil
}

func (s *Server) serving(handler http.Handler) *http.Server {
	server := console.Serving(handler)
	server.ErrorLog = log.New(logLines{s.log}, "", 0)
	return server
}

// logLines makes what net/http complains about part of the structured log.
type logLines struct{ log logr.Logger }

func (l logLines) Write(line []byte) (int, error) {
	l.log.V(1).Info("connection failed", "cause", string(line))
	return len(line), nil
}

// Address is where the API listens.
func (s *Server) Address() string { return s.address.String() }

// Close gives everything free, for a Server that does not run.
func (s *Server) Close() {
	s.closeParts()
	for _, l := range s.listens {
		_ = l.Close() // it may have ended with Run
	}
}

// closeParts ends what was opened beside the addresses. Doing it again does nothing.
func (s *Server) closeParts() {
	if s.build != nil {
		s.build.close()
	}
	if s.diff != nil {
		_ = s.diff.Close() // its children end with this process at the latest
	}
}

// Pushed tells the build half that a branch of a source has moved. What is told again changes nothing.
func (s *Server) Pushed(ctx context.Context, repo builder.Repo, ref string, commit gitsource.ObjectID, actor string) error {
	if s.build == nil {
		return nil
	}
	return s.build.pushed(ctx, repo, ref, commit, actor)
}

// graceful is how long requests may take to end after a signal. One that is cut
// off is sent again by its agent.
const graceful = 10 * time.Second

// Run serves until ctx ends or an address fails.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	for _, poller := range s.pollers {
		running.Go(func() { poller.Run(ctx) })
	}
	for _, herald := range s.heralds {
		running.Go(func() { herald.Run(ctx) })
	}
	for _, serve := range s.serve {
		running.Go(func() {
			if err := serve(); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("server: %w", err))
			}
		})
	}
	if s.build != nil {
		for _, serve := range s.build.runs() {
			running.Go(func() {
				if err := serve(ctx); err != nil && ctx.Err() == nil {
					cancel(fmt.Errorf("server: %w", err))
				}
			})
		}
	}
	s.log.Info("serving", "address", s.Address(), "tls", s.tls)
	<-ctx.Done()
	s.console.Drain()
	bounded, stop := context.WithTimeout(context.WithoutCancel(ctx), graceful)
	defer stop()
	err := s.api.Shutdown(bounded)
	if s.probes != nil {
		err = errors.Join(err, s.probes.Shutdown(bounded))
	}
	if err != nil {
		s.log.Info("requests were cut off", "cause", err.Error())
		_ = s.api.Close() // nothing is left to do about it
	}
	cancel(nil)
	running.Wait()
	s.closeParts()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// loopback reports whether nobody but this machine reaches an address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// byPromoter is the console's Reverter.
type byPromoter struct{ promoter *promoter.Promoter }

func (p byPromoter) Revert(ctx context.Context, request v1alpha1.RevertRequest) (console.Reverted, error) {
	done, err := p.promoter.CarryOut(ctx, request)
	outcomes := map[promoter.Outcome]console.Outcome{
		promoter.Superseded: console.Superseded,
		promoter.Done:       console.Done,
	}
	return console.Reverted{
		Outcome: outcomes[done.Outcome], Reason: done.Reason, Commit: done.Commit, Branch: done.Branch, Pushed: done.Pushed,
	}, err
}

// stoppable is a store whose pushes failpoints can stop before and after.
type stoppable struct{ *gogit.Store }

func (s stoppable) Push(ctx context.Context, ref string, old, new gitsource.ObjectID) error {
	wire.Failpoint(reconciler.FailpointCommit)
	if err := s.Store.Push(ctx, ref, old, new); err != nil {
		return err
	}
	wire.Failpoint(reconciler.FailpointPush)
	return nil
}
