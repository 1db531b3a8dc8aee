package console

import (
	"context"
	"errors"
	"iter"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/console/chain"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Reverter carries out revert requests for one branch of one repository. It
// verifies who signed a request; the console does not. An error means that
// nobody knows what became of it, and that the same request may be sent again.
type Reverter interface {
	Revert(ctx context.Context, request v1alpha1.RevertRequest) (Reverted, error)
}

// Refs shows where the refs of a repository are now.
type Refs interface {
	Refs(ctx context.Context) (map[string]gitsource.ObjectID, error)
}

// Runs shows what is and was built. Errors of a Run or Job that is definitely
// not there are builder.ErrNotFound.
type Runs interface {
	// Runs returns those that the filter lets through, newest first.
	Runs(ctx context.Context, filter builder.RunFilter) ([]builder.Run, error)
	Run(ctx context.Context, id string) (builder.Run, error)
	// Logs yields the lines of a Job behind the sequence from; with follow also those to come, until the Job has ended.
	Logs(ctx context.Context, id, job string, from uint64, follow bool) iter.Seq2[builder.Log, error]
}

// Control changes what is built. ErrRefused says that it will not be done, and why.
type Control interface {
	// Cancel ends a Run. One that has ended stays as it is.
	Cancel(ctx context.Context, id, by, reason string) error
	// Retry makes a new Run for the same Revision.
	Retry(ctx context.Context, id, by string) (builder.Run, error)
}

// Tracer tells the chain that a subject is part of; empty if nothing is known of it.
type Tracer interface {
	Trace(ctx context.Context, subject string) ([]chain.Stage, error)
}

// ErrRefused says that Control will not do what was asked, now or later. Its
// text is shown to the caller.
var ErrRefused = errors.New("refused")

// Outcome is what became of a revert request.
type Outcome uint8

const (
	// Refused is the zero value: it is not to be carried out, now or later.
	Refused Outcome = iota
	// Superseded says that the branch has moved: the agent computes and sends again.
	Superseded
	// Done says that Git shows the revert, or the branch on which it waits for a person.
	Done
)

func (o Outcome) String() string { return [...]string{"refused", "superseded", "done"}[min(o, Done)] }

// Reverted is the answer of a Reverter.
type Reverted struct {
	Outcome Outcome
	Reason  string             // for people; when Done only why Branch waits although the request was direct
	Commit  gitsource.ObjectID // that Branch shows, when Done
	Branch  string             // without refs/heads/, when Done
	Pushed  bool               // by this call; false if it was there already
}
