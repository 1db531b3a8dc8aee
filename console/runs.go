package console

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/console/chain"
	"github.com/slipway-cd/slipway/gitsource"
)

// maxRuns bounds one page, pageRuns is one that asks for nothing else.
const (
	maxRuns  = 200
	pageRuns = 50
)

// Reason says why somebody steps in.
type Reason struct {
	Reason string `json:"reason"`
}

// RunPage is a page of Runs, newest first. Next is what `before` has to be for the following one; empty at the end.
type RunPage struct {
	Runs []builder.Run `json:"runs"`
	Next string        `json:"next,omitempty"`
}

// JobList are the Jobs of a Run, in the order of its Pipeline.
type JobList struct {
	Jobs []builder.Job `json:"jobs"`
}

// ApplicationList is what all clusters report.
type ApplicationList struct {
	Applications []ReportedApplication `json:"applications"`
}

// ReportedApplication is an Application as the agent of a cluster last reported it.
type ReportedApplication struct {
	Cluster    string    `json:"cluster"`
	ReceivedAt time.Time `json:"receivedAt"`
	Application
}

// Chain is what a subject is part of, from its source to its end.
type Chain struct {
	Subject string        `json:"subject"`
	Stages  []chain.Stage `json:"stages"`
}

func (s *Server) getRuns(w http.ResponseWriter, r *http.Request) {
	f, err := parseRunFilter(r)
	if err != nil {
		answer(w, http.StatusBadRequest, Answer{Error: brief(err.Error())})
		return
	}
	wanted := f.Limit
	f.Limit++ // one more says whether there is a next page
	runs, err := s.runs.Runs(r.Context(), f)
	if err != nil {
		s.failed(w, r, err)
		return
	}
	page := RunPage{Runs: append([]builder.Run{}, runs[:min(len(runs), wanted)]...)}
	if len(runs) > wanted {
		page.Next = runs[wanted-1].ID
	}
	answer(w, http.StatusOK, page)
}

// parseRunFilter refuses parameters that it does not know: a filter that is ignored shows what nobody asked for.
func parseRunFilter(r *http.Request) (builder.RunFilter, error) {
	f := builder.RunFilter{Limit: pageRuns}
	for name, values := range r.URL.Query() {
		value := values[len(values)-1]
		switch name {
		case "repo":
			f.Repo = value
		case "branch":
			f.Branch = value
		case "commit":
			id, err := gitsource.ParseObjectID(value)
			if err != nil {
				return f, fmt.Errorf("commit: %w (give all of its digits)", err)
			}
			f.Commit = id
		case "trace":
			f.Trace = value
		case "digest":
			f.Digest = value
		case "before":
			f.Before = value
		case "limit":
			limit, err := strconv.Atoi(value)
			if err != nil || limit < 1 || limit > maxRuns {
				return f, fmt.Errorf("limit %q: want a number from 1 to %d", value, maxRuns)
			}
			f.Limit = limit
		case "state":
			for text := range strings.SplitSeq(strings.Join(values, ","), ",") {
				var state builder.State
				if err := state.UnmarshalText([]byte(text)); err != nil {
					return f, err
				}
				f.States = append(f.States, state)
			}
		default:
			return f, fmt.Errorf("parameter %q: want repo, branch, commit, trace, digest, state, before or limit", name)
		}
	}
	return f, nil
}

func (s *Server) getRun(w http.ResponseWriter, r *http.Request) {
	run, err := s.runs.Run(r.Context(), r.PathValue("id"))
	if err != nil {
		s.failed(w, r, err)
		return
	}
	answer(w, http.StatusOK, run)
}

func (s *Server) getJobs(w http.ResponseWriter, r *http.Request) {
	run, err := s.runs.Run(r.Context(), r.PathValue("id"))
	if err != nil {
		s.failed(w, r, err)
		return
	}
	answer(w, http.StatusOK, JobList{Jobs: append([]builder.Job{}, run.Jobs...)})
}

func (s *Server) cancelRun(w http.ResponseWriter, r *http.Request) {
	var why Reason
	if !s.read(w, r, &why) {
		return
	}
	if strings.TrimSpace(why.Reason) == "" {
		answer(w, http.StatusBadRequest, Answer{Error: "reason: empty (say why, people will ask)"})
		return
	}
	id, by := r.PathValue("id"), callerOf(r.Context())
	run, err := s.runs.Run(r.Context(), id)
	if err == nil && run.State.Ended() {
		answer(w, http.StatusConflict, Answer{Error: fmt.Sprintf("run %s: it has ended already: %s", run.ID, run.State)})
		return
	}
	if err == nil {
		err = s.control.Cancel(r.Context(), id, by, brief(why.Reason))
	}
	if err == nil {
		run, err = s.runs.Run(r.Context(), id)
	}
	if err != nil {
		s.failed(w, r, err)
		return
	}
	s.log.Info("run cancelled", "run", run.ID, "by", by, "reason", brief(why.Reason))
	answer(w, http.StatusAccepted, run)
}

// retryRun wants a body, an empty object, so that no web page can have it done by a form.
func (s *Server) retryRun(w http.ResponseWriter, r *http.Request) {
	var nothing struct{}
	if !s.read(w, r, &nothing) {
		return
	}
	by := callerOf(r.Context())
	run, err := s.control.Retry(r.Context(), r.PathValue("id"), by)
	if err != nil {
		s.failed(w, r, err)
		return
	}
	s.log.Info("run retried", "run", brief(r.PathValue("id")), "by", by, "new", run.ID)
	w.Header().Set("Location", PathRuns+"/"+url.PathEscape(run.ID))
	answer(w, http.StatusCreated, run)
}

func (s *Server) getApplications(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	for name := range query {
		if !slices.Contains([]string{"cluster", "app", "environment"}, name) {
			answer(w, http.StatusBadRequest, Answer{Error: fmt.Sprintf("parameter %q: want cluster, app or environment", brief(name))})
			return
		}
	}
	is := func(name, value string) bool { return !query.Has(name) || query.Get(name) == value }
	list := ApplicationList{Applications: []ReportedApplication{}}
	for _, report := range s.reports.all() {
		for _, app := range report.Applications {
			if is("cluster", report.Cluster) && is("app", app.App) && is("environment", app.Environment) {
				list.Applications = append(list.Applications, ReportedApplication{report.Cluster, report.ReceivedAt, app})
			}
		}
	}
	answer(w, http.StatusOK, list)
}

func (s *Server) getTrace(w http.ResponseWriter, r *http.Request) {
	subject := r.PathValue("subject")
	stages, err := s.tracer.Trace(r.Context(), subject)
	if err == nil && len(stages) == 0 {
		err = fmt.Errorf("%s: nothing is known of it (want a commit, a run, a digest, a trace id or an app): %w", brief(subject), builder.ErrNotFound)
	}
	if err != nil {
		s.failed(w, r, err)
		return
	}
	answer(w, http.StatusOK, Chain{Subject: subject, Stages: stages})
}

// failed tells what is definite; the cause of anything else is for the log.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case r.Context().Err() != nil: // nobody reads the answer
	case errors.Is(err, ErrRefused):
		answer(w, http.StatusConflict, Answer{Error: brief(err.Error())})
	case errors.Is(err, builder.ErrNotFound):
		answer(w, http.StatusNotFound, Answer{Error: brief(err.Error())})
	default:
		id := r.Header.Get(headerRequestID)
		s.log.Error(err, "request failed", "method", r.Method, "path", brief(r.URL.Path), "request", id)
		w.Header().Set("Retry-After", "2")
		answer(w, http.StatusServiceUnavailable, Answer{Error: "it could not be answered (try again; the server's log says why, at request " + id + ")"})
	}
}

// missing answers for what a server was not started to do.
func missing(what, wayOut string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotImplemented, Answer{Error: what + " (" + wayOut + ")"})
	}
}
