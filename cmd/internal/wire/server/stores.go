package server

import (
	"context"
	"fmt"
	"sync"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/promoter"
)

// stores are the clones of the repositories that this process knows, one for each URL.
type stores struct {
	data string
	// of returns how a repository is reached; false for one that nobody configured. URLs come out of commit
	// messages too, which anybody may write: none is dialled because it is asked for.
	of   func(url string) (Repository, bool)
	sign func(payload []byte) (string, error) // nil for commits that are not signed

	mu   sync.Mutex
	open map[string]*gogit.Store
}

func newStores(data string, of func(url string) (Repository, bool)) *stores {
	return &stores{data: data, of: of, open: map[string]*gogit.Store{}}
}

// configured returns what reaches the given repositories and no others.
func configured(repositories []Repository) func(url string) (Repository, bool) {
	known := map[string]Repository{}
	for _, r := range repositories {
		known[r.URL] = r
	}
	return func(url string) (Repository, bool) {
		r, found := known[url]
		return r, found
	}
}

func (s *stores) store(ctx context.Context, url string) (*gogit.Store, error) {
	repository, known := s.of(url)
	if !known {
		return nil, fmt.Errorf("repository %s: %w among those that are configured", url, gitsource.ErrNotFound)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if store, found := s.open[url]; found {
		return store, nil
	}
	store, err := repository.open(ctx, s.data, s.sign)
	if err == nil {
		s.open[url] = store
	}
	return store, err
}

// Snapshot returns the tree of a commit of a repository that is built.
func (s *stores) Snapshot(ctx context.Context, repo builder.Repo, revision gitsource.Revision) (gitsource.Snapshot, error) {
	store, err := s.store(ctx, repo.URL)
	if err != nil {
		return gitsource.Snapshot{}, err
	}
	snapshot, err := store.SnapshotOf(ctx, revision.ID)
	snapshot.Revision = revision
	return snapshot, err
}

// History returns that of a repository, for who asks which of two commits is the newer.
func (s *stores) History(ctx context.Context, url string) (promoter.History, error) {
	return s.store(ctx, url)
}
