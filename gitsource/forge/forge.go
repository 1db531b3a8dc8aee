// Package forge names what a Git host tells and is told beside Git itself: pushes by webhook, pull requests, reviews,
// statuses of commits. The words are the same for each kind of host.
//
// It holds values and the reading of webhooks, which is pure: no network, no clock. Who serves webhooks is package webhook
// below; who speaks to a host is a package below that is named after it.
package forge

import (
	"errors"
	"fmt"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
)

// Errors on which callers branch.
var (
	// ErrNotFound says that the host knows of no such thing, or shows it to nobody with these credentials.
	ErrNotFound = errors.New("not found")
	// ErrDenied says that the host does not accept these credentials for this.
	ErrDenied = errors.New("not allowed")
	// ErrBlocked says that a rule of the host forbids it in the present state: a missing approval or status, a conflict.
	// It may become possible without a change of the request.
	ErrBlocked = errors.New("blocked by the host")
)

// Error is a call to a host that failed. It never holds credentials.
type Error struct {
	Host   string        // "git.example.com:3000"
	Repo   string        // "fleet/production"
	Op     string        // what was tried: "merge pull request 7"
	Code   int           // HTTP status; 0 if there was no answer
	Reason string        // what the host said about it, one line
	After  time.Duration // for which the host wants to be left alone; 0 where it did not say
	Err    error         // cause, one of the errors above where one fits
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s on %s: %s", e.Repo, e.Host, e.Op)
	if e.Code != 0 {
		text += fmt.Sprintf(": HTTP %d", e.Code)
	}
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same call may succeed later without anybody having changed anything: the host did not
// answer, was overloaded or broke down.
func (e *Error) Temporary() bool {
	return e.Code == 0 || e.Code == 408 || e.Code == 429 || e.Code >= 500
}

// Request asks for a pull request.
type Request struct {
	Head  string // branch that is to be merged, "promote/shop-production"
	Base  string // branch that it goes to, "main"
	Title string // one line
	Body  string // Markdown
}

// State of a pull request.
type State string

// The states. The zero value is none of them.
const (
	Open   State = "open"
	Closed State = "closed" // without a merge
	Merged State = "merged"
)

// MergeMethod is how the commits of a pull request come to its base.
type MergeMethod string

// The methods. The zero value is none of them.
const (
	MergeCommit MergeMethod = "merge" // with a commit of two parents
	MergeSquash MergeMethod = "squash"
	MergeRebase MergeMethod = "rebase"
)

// PullRequest is a pull request as the host shows it.
type PullRequest struct {
	Number     int64
	URL        string // for people
	State      State
	Head, Base string // branches
	// Own says that Head is a branch of the repository itself, to which only those push who may. A fork's is not, nor is
	// what hosts take from people who may only read.
	Own         bool
	Labels      []string
	HeadCommit  gitsource.ObjectID
	MergeCommit gitsource.ObjectID // on Base; empty unless Merged
	Title, Body string
	Author      string
	MergedBy    string // empty unless Merged
	// Mergeable says that there was no conflict when the host looked last. It says nothing about approvals.
	Mergeable bool
	Updated   time.Time
}

// Verdict of a review.
type Verdict string

// The verdicts. The zero value is none of them, and approves nothing.
const (
	Approved         Verdict = "approved"
	ChangesRequested Verdict = "changes requested"
	Commented        Verdict = "commented"
)

// Review is what a person said about a pull request.
type Review struct {
	ID      int64
	Author  string
	Verdict Verdict
	Commit  gitsource.ObjectID // that was looked at
	// Stands is false when the host does not count it any more: it was dismissed, or commits came after it.
	Stands    bool
	Official  bool // of somebody whose approval the host counts for the protected branch
	Body      string
	Submitted time.Time
}

// StatusState says how a check of a commit ended. The zero value is none.
type StatusState string

// The states of a check. Failure is a result, Error the lack of one.
const (
	Pending StatusState = "pending"
	Success StatusState = "success"
	Failure StatusState = "failure"
	Errored StatusState = "error"
)

// Status is one check of a commit. A later one of the same Context takes the place of an earlier one.
type Status struct {
	State       StatusState
	Context     string // name of the check, "slipway/build"; branch protection refers to it
	Description string // one short line
	URL         string // of the details; may be empty
}
