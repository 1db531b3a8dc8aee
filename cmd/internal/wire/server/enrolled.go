package server

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// keysFor is how long the tip of a repository is taken for what it was: anybody may send what has to be verified, and that
// must not become a load on the Git host.
const keysFor = 15 * time.Second

// enrolled reads from environment repos which keys agents have.
type enrolled struct {
	repos []*enrolling
	now   func() time.Time
}

// enrolling is one repository, as it was a moment ago.
type enrolling struct {
	store  *gogit.Store
	branch string

	mu   sync.Mutex
	at   time.Time
	tree gitsource.Tree
	err  error
}

// AgentKeys are the keys that any of the repositories has for a cluster.
func (e *enrolled) AgentKeys(ctx context.Context, cluster string) (keys []ed25519.PublicKey, err error) {
	path := environment.AgentKeyPath(cluster)
	for _, repo := range e.repos {
		tree, failed := repo.tip(ctx, e.now())
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		content, failed := tree.ReadFile(path)
		if errors.Is(failed, fs.ErrNotExist) {
			continue
		}
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", path, failed))
			continue
		}
		if key, failed := undo.ParsePublicKey(content); failed == nil {
			keys = append(keys, key)
		}
	}
	if len(keys) > 0 {
		return keys, nil
	}
	return nil, err
}

// tip is the tree that agents follow. One that was read is good for a while, and so is a failure.
func (r *enrolling) tip(ctx context.Context, now time.Time) (gitsource.Tree, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.at.IsZero() && now.Sub(r.at) < keysFor {
		return r.tree, r.err
	}
	r.at, r.tree = now, nil
	var revision gitsource.Revision
	if revision, r.err = r.store.Fetch(ctx, "refs/heads/"+r.branch); r.err == nil {
		var snapshot gitsource.Snapshot
		snapshot, r.err = r.store.SnapshotOf(ctx, revision.ID)
		r.tree = snapshot.Tree
	}
	return r.tree, r.err
}
