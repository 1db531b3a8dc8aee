package console

import (
	"context"

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
	Reason  string             // for people, unless Done
	Commit  gitsource.ObjectID // that Branch shows, when Done
	Branch  string             // without refs/heads/, when Done
	Pushed  bool               // by this call; false if it was there already
}
