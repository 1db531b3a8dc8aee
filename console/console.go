// Package console is the HTTP API of the server, for agents and for people.
//
// To agents it promises little on purpose. A revert request is carried out by a
// Reverter, which verifies the agent's signature; nobody needs to be known here to
// send one. Reports and nudges are hints: they are bounded in number and size,
// kept in memory only, and nothing may be allowed because of them.
//
// To people it shows runs, their logs, applications and chains, and lets them
// cancel and retry. They need a token for that; without any token configured, only
// this machine may ask, by a loopback address. Webhooks of Git hosts are handed to
// whoever verifies them. Losing this process at any moment loses nothing that Git
// and the queue do not hold. GET /openapi.json describes all of it.
package console

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

// Paths of the API.
const (
	PathReverts = "/v1/reverts" // POST a RevertRequest, answered by an Answer
	PathReports = "/v1/reports" // POST a Report; GET the newest one of each cluster
	PathNudges  = "/v1/nudges"  // GET a stream of server-sent events, each data line a Nudge

	PathRuns         = "/v1/runs"         // GET a RunPage; below it a Run, its jobs, their logs
	PathApplications = "/v1/applications" // GET an ApplicationList
	PathTrace        = "/v1/trace/"       // GET a Chain, of the subject that follows
	PathHooks        = "/v1/hooks/"       // POST a webhook, to the name that follows
	PathOpenAPI      = "/openapi.json"    // GET the description of this API
)

// Repository is one branch that reverts are pushed to.
type Repository struct {
	URL     string // as agents name it in their requests
	Branch  string
	Reverts Reverter
}

// Options of a Server. Limits that are 0 take their default.
type Options struct {
	Repositories []Repository // at least one
	Nudges       *Hub         // default: one of its own
	Runs         Runs         // nil: nothing is built here
	Control      Control      // of Runs
	Tracer       Tracer       // nil: no chains are told
	Enrolled     Enrolled     // whose agents' Rollouts are shown; nil: nobody's
	Hooks        http.Handler // of webhooks, each with its own check of who sent it; nil for none
	Tokens       []Token      // none: people may ask from this machine alone
	Metrics      prometheus.Registerer
	Log          logr.Logger
	Now          func() time.Time // default time.Now

	// CarryOut bounds one revert, also after its client has gone; default 1 min.
	CarryOut time.Duration
	// Waiting bounds the reverts of one repository that wait for their turn; default 64.
	Waiting int
	// Heartbeat is the time between two signs of life on a stream of nudges; default 15 s.
	Heartbeat time.Duration
	// Clusters bounds how many report; default 1000.
	Clusters int
	// Streams bounds how many clients read logs at a time; default 200.
	Streams int
}

// Server answers agents and people.
type Server struct {
	repositories map[repositoryKey]*turns
	nudges       *Hub
	reports      *reports
	runs         Runs
	control      Control
	tracer       Tracer
	enrolled     Enrolled
	rollouts     *rollouts
	hooks        http.Handler
	tokens       []Token
	streams      chan struct{} // one for each client that reads logs
	metrics      *metrics
	log          logr.Logger
	carryOut     time.Duration
	heartbeat    time.Duration
	draining     atomic.Bool
	done         chan struct{} // closed by Drain
}

type repositoryKey struct{ url, branch string }

// New checks the options.
func New(o Options) (*Server, error) {
	if len(o.Repositories) == 0 {
		return nil, errors.New("server: no repository to write reverts to (name one with --repo)")
	}
	if (o.Runs == nil) != (o.Control == nil) {
		return nil, errors.New("server: Runs and Control belong together")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Nudges == nil {
		o.Nudges = NewHub(0)
	}
	s := &Server{
		repositories: map[repositoryKey]*turns{},
		nudges:       o.Nudges,
		reports:      newReports(o.Now, or(o.Clusters, 1000)),
		runs:         o.Runs,
		control:      o.Control,
		tracer:       o.Tracer,
		enrolled:     o.Enrolled,
		rollouts:     &rollouts{now: o.Now, most: or(o.Clusters, 1000), newest: map[string]receivedRollouts{}},
		hooks:        o.Hooks,
		tokens:       o.Tokens,
		streams:      make(chan struct{}, or(o.Streams, 200)),
		log:          o.Log,
		carryOut:     or(o.CarryOut, time.Minute),
		heartbeat:    or(o.Heartbeat, 15*time.Second),
		done:         make(chan struct{}),
	}
	for _, r := range o.Repositories {
		key := repositoryKey{r.URL, r.Branch}
		if r.Reverts == nil || r.URL == "" || r.Branch == "" {
			return nil, errors.New("server: a repository needs a URL, a branch and a Reverter")
		}
		if s.repositories[key] != nil {
			return nil, fmt.Errorf("repository %s: branch %s is named twice", r.URL, r.Branch)
		}
		s.repositories[key] = newTurns(r.Reverts, or(o.Waiting, 64))
	}
	var err error
	s.metrics, err = newMetrics(o.Metrics, o.Nudges, s.reports)
	return s, err
}

func or[T int | time.Duration](value, otherwise T) T {
	if value > 0 {
		return value
	}
	return otherwise
}

// Handler serves the API, /healthz and /readyz.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.Handle(r.pattern, s.observed(r.pattern, s.allowed(r.scope, r.handler)))
	}
	s.addProbes(mux)
	return identified(explained(mux))
}

// Probes serves /healthz and /readyz alone, for an address without TLS.
func (s *Server) Probes() *http.ServeMux {
	mux := http.NewServeMux()
	s.addProbes(mux)
	return mux
}

func (s *Server) addProbes(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s.draining.Load() {
			http.Error(w, "stopping", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
}

// Drain ends the streams and makes /readyz fail, so that http.Server.Shutdown
// waits for short requests only. Call it once.
func (s *Server) Drain() {
	s.draining.Store(true)
	close(s.done)
}
