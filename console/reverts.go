package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// maxBody bounds the body of a request, in bytes.
const maxBody = 1 << 20

// Answer says what became of a revert request.
type Answer struct {
	Commit     string `json:"commit,omitempty"`     // the commit on the followed branch
	Branch     string `json:"branch,omitempty"`     // the branch that waits for a person
	Why        string `json:"why,omitempty"`        // the branch waits, where the request itself does not say so
	Superseded bool   `json:"superseded,omitempty"` // the tip has moved: compute again and send that
	Error      string `json:"error,omitempty"`      // why it was refused
}

// errBusy says that too many requests wait already.
var errBusy = errors.New("too many revert requests wait for this repository")

// turns lets one revert at a time work on a repository.
type turns struct {
	reverter Reverter
	turn     chan struct{}
	waiting  atomic.Int64
	most     int64
}

func newTurns(r Reverter, most int) *turns {
	return &turns{reverter: r, turn: make(chan struct{}, 1), most: int64(most)}
}

// revert waits for its turn. It stops waiting, but not working, when wait ends.
func (t *turns) revert(wait, work context.Context, request v1alpha1.RevertRequest) (Reverted, error) {
	defer t.waiting.Add(-1)
	if t.waiting.Add(1) > t.most {
		return Reverted{}, errBusy
	}
	select {
	case t.turn <- struct{}{}:
	case <-wait.Done():
		return Reverted{}, wait.Err()
	case <-work.Done():
		return Reverted{}, work.Err()
	}
	defer func() { <-t.turn }()
	return t.reverter.Revert(work, request)
}

func (s *Server) postRevert(w http.ResponseWriter, r *http.Request) {
	var request v1alpha1.RevertRequest
	if !s.read(w, r, &request) {
		s.metrics.reverts.WithLabelValues("malformed").Inc()
		return
	}
	log := s.log.WithValues("cluster", brief(request.Cluster), "app", brief(request.App), "environment", brief(request.Environment), "tip", brief(request.Tip))
	repository, found := s.repositories[repositoryKey{request.URL, request.Branch}]
	if !found {
		s.metrics.reverts.WithLabelValues(Refused.String()).Inc()
		reason := fmt.Sprintf("this server does not write to branch %s of %s (name the repository with --repo, in the same spelling as the GitSource)", brief(request.Branch), brief(request.URL))
		log.Info("revert request refused", "reason", reason)
		answer(w, http.StatusForbidden, Answer{Error: reason})
		return
	}
	// A revert that has begun is finished also when the agent hangs up: else a
	// slow Git host and an impatient agent would never get it done.
	work, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), s.carryOut)
	defer cancel()
	done, err := repository.revert(r.Context(), work, request)
	if err != nil {
		s.metrics.reverts.WithLabelValues("unknown").Inc()
		log.Error(err, "revert request not carried out")
		w.Header().Set("Retry-After", "5")
		answer(w, http.StatusServiceUnavailable, Answer{Error: cause(err)})
		return
	}
	s.metrics.reverts.WithLabelValues(done.Outcome.String()).Inc()
	log.Info("revert request answered", "outcome", done.Outcome.String(), "reason", brief(done.Reason),
		"commit", string(done.Commit), "branch", done.Branch, "pushed", done.Pushed)
	if done.Pushed {
		s.nudges.Publish(Nudge{URL: request.URL, Ref: "refs/heads/" + done.Branch})
	}
	answerRevert(w, request.Branch, done)
}

func answerRevert(w http.ResponseWriter, followed string, done Reverted) {
	switch {
	case done.Outcome == Superseded:
		answer(w, http.StatusOK, Answer{Superseded: true})
	case done.Outcome == Done && done.Branch == followed:
		answer(w, http.StatusOK, Answer{Commit: string(done.Commit)})
	case done.Outcome == Done:
		answer(w, http.StatusOK, Answer{Branch: done.Branch, Why: done.Reason})
	default:
		answer(w, http.StatusForbidden, Answer{Error: done.Reason})
	}
}

// cause tells a stranger no more than what helps: the log has the rest.
func cause(err error) string {
	switch {
	case errors.Is(err, gitsource.ErrUnreachable):
		return gitsource.ErrUnreachable.Error() + " (send it again)"
	case errors.Is(err, errBusy):
		return errBusy.Error() + " (send it again later)"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "it took too long (send it again)"
	}
	return "it could not be carried out; the server's log says why (send it again)"
}
