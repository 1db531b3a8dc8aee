package reconciler

import (
	"context"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// walked bounds how many commits are looked at behind a failed one.
const walked = 100

// origin returns the commit of the followed branch that brought in a Set. Where several
// commits arrived at once, the Set was first seen at the last of them. What cannot be
// told leaves it there.
func (p *pass) origin(ctx context.Context, set v1alpha1.SetRef) string {
	revision, err := gitsource.ParseRevision(set.Revision)
	if err != nil {
		return set.Revision
	}
	healthy := ""
	if p.app.Status.Healthy != nil {
		healthy = p.app.Status.Healthy.Revision
	}
	for range walked {
		commit, err := p.repository.CommitOf(ctx, revision.ID)
		if err != nil || len(commit.Parents) == 0 {
			break
		}
		parent := revision
		parent.ID = commit.Parents[0]
		if parent.String() == healthy || p.digestAt(ctx, parent.ID) != set.SetDigest {
			break
		}
		revision = parent
	}
	return revision.String()
}

// digestAt is empty where a commit cannot be read or does not render.
func (p *pass) digestAt(ctx context.Context, id gitsource.ObjectID) string {
	snapshot, err := p.repository.SnapshotOf(ctx, id)
	if err != nil {
		return ""
	}
	set, err := p.r.render(ctx, snapshot, p.app)
	if err != nil {
		return ""
	}
	return string(set.Digest)
}

// irreversible names a commit since the last healthy Set that must not be reverted
// automatically; empty if there is none. A merge brings in commits with messages of their own.
func (p *pass) irreversible(ctx context.Context, failed gitsource.ObjectID) string {
	healthy, err := gitsource.ParseRevision(p.app.Status.Healthy.Revision)
	if err != nil {
		return err.Error()
	}
	commits, err := p.repository.Log(ctx, failed, walked)
	if err != nil {
		return "" // unknown now; the push will need the host anyway
	}
	for _, commit := range commits {
		if commit.ID == healthy.ID {
			break
		}
		if !trailer.Parse(commit.Message).Irreversible || p.isBehind(ctx, commit.ID, healthy.ID) || !p.changes(ctx, commit) {
			continue
		}
		if commit.ID == failed {
			return "the commit is marked Slipway-Irreversible"
		}
		return "commit " + commit.ID.Short() + " is marked Slipway-Irreversible"
	}
	return ""
}

// isBehind reports whether old was in the history of tip already.
func (p *pass) isBehind(ctx context.Context, old, tip gitsource.ObjectID) bool {
	base, err := p.repository.MergeBase(ctx, old, tip)
	return err == nil && base == old
}

// changes reports whether a commit made this Application render to another Set; in doubt it did.
func (p *pass) changes(ctx context.Context, commit gitsource.Commit) bool {
	if len(commit.Parents) == 0 {
		return true
	}
	before, after := p.digestAt(ctx, commit.Parents[0]), p.digestAt(ctx, commit.ID)
	return before == "" || after == "" || before != after
}
