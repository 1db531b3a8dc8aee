package promoter

import (
	"context"
	"iter"

	"github.com/slipway-cd/slipway/gitsource"
)

// Reader sees what the environment repo holds now.
type Reader interface {
	// Fetch returns where ref is; gitsource.ErrNotFound if it is not there.
	Fetch(ctx context.Context, ref string) (gitsource.Revision, error)
	// SnapshotOf returns the tree of a commit.
	SnapshotOf(ctx context.Context, commit gitsource.ObjectID) (gitsource.Snapshot, error)
}

// History sees how it came about.
type History interface {
	CommitOf(ctx context.Context, commit gitsource.ObjectID) (gitsource.Commit, error)
	MergeBase(ctx context.Context, a, b gitsource.ObjectID) (gitsource.ObjectID, error)
	// Log returns the newest limit commits that from can reach, newest first.
	Log(ctx context.Context, from gitsource.ObjectID, limit int) ([]gitsource.Commit, error)
}

// Writer makes objects and moves refs.
type Writer interface {
	// WriteTree returns the tree of the commit base with changes made.
	WriteTree(base gitsource.ObjectID, changes []gitsource.Change) (gitsource.ObjectID, error)
	Commit(c gitsource.NewCommit) (gitsource.ObjectID, error)
	// Push moves ref from old to new, or fails with gitsource.ErrMoved. An empty
	// old means that ref must not exist, an empty new deletes it.
	Push(ctx context.Context, ref string, old, new gitsource.ObjectID) error
}

// Repo is the environment repo.
type Repo interface {
	Reader
	History
	Writer
}

// Sources are the repositories that images are built from.
type Sources interface {
	// History returns that of the repository at url; gitsource.ErrNotFound for one that
	// is not configured. The url comes from trailers, which anybody may type: never dial it because it is asked for.
	History(ctx context.Context, url string) (History, error)
}

// Requests are the pull requests of the Git host, where people review and merge.
// That the host cannot be reached is an error that wraps gitsource.ErrUnreachable.
type Requests interface {
	// Of yields what there ever was for a branch (without refs/heads/), the newest first. An error ends it; none at all is no
	// error. Who stops early spares the host the rest.
	Of(ctx context.Context, branch string) iter.Seq2[PullRequest, error]
	// Open makes the request that merges branch into the followed one. Where one is open, that one gets this title and body.
	Open(ctx context.Context, branch, title, body string) (PullRequest, error)
	// Comment says text on a request, once for each key: letters, digits and single hyphens, which people do not see.
	Comment(ctx context.Context, number int64, key, text string) error
}

// Merger merges pull requests by the rules of the host: approvals, checks.
type Merger interface {
	// Merge fails while a rule is not met, and if the request's branch is not at head any more.
	Merge(ctx context.Context, number int64, head gitsource.ObjectID) (PullRequest, error)
}

// PullRequest is one of a Git host.
type PullRequest struct {
	Number int64
	URL    string // for people
	Closed bool   // not merged, and not to be
	Merged bool
	Head   gitsource.ObjectID // of its branch; when closed or merged, as it was then; empty if the host does not say
	Merge  gitsource.ObjectID // commit on the followed branch that merged it; empty if the host does not say
}

// Diff shows what a request changes in the cluster.
type Diff interface {
	// Rendered returns a unified diff of what folder renders to, without the values of Secrets; empty if it is the same.
	Rendered(ctx context.Context, folder string, from, to gitsource.Snapshot) (string, error)
}
