package gogit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/slipway-cd/slipway/gitsource"
)

// CommitOf returns a commit, which is fetched if it is not here.
func (s *Store) CommitOf(ctx context.Context, id gitsource.ObjectID) (gitsource.Commit, error) {
	hash, err := s.bring(ctx, id)
	if err != nil {
		return gitsource.Commit{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	commit, err := s.commit(hash)
	if err != nil {
		return gitsource.Commit{}, fmt.Errorf("commit %s: %w", id, notFound(err))
	}
	return commitOf(commit), nil
}

// Object returns a commit or an annotated tag as Git stores it, byte by byte. That they are the bytes of
// which the id is the hash is checked: go-git takes a loose file at its name. A commit is fetched if it is not here.
func (s *Store) Object(ctx context.Context, id gitsource.ObjectID) ([]byte, error) {
	hash, err := hashOf(id)
	if err != nil {
		return nil, err
	}
	content, err := s.object(hash)
	if !errors.Is(err, gitsource.ErrNotFound) {
		return content, err
	}
	if _, err := s.bring(ctx, id); err != nil {
		return nil, err
	}
	return s.object(hash)
}

func (s *Store) object(hash plumbing.Hash) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.disk.EncodedObject(plumbing.AnyObject, hash)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", hash, notFound(err))
	}
	if found.Type() != plumbing.CommitObject && found.Type() != plumbing.TagObject {
		return nil, fmt.Errorf("object %s: %w: it is a %s, not a commit or tag", hash, gitsource.ErrNotFound, found.Type())
	}
	reader, err := found.Reader()
	if err != nil {
		return nil, s.missing(fmt.Errorf("object %s: %w: %w", hash, errIncomplete, err))
	}
	defer func() { _ = reader.Close() }()
	content, err := io.ReadAll(reader)
	if err != nil {
		return nil, s.missing(fmt.Errorf("object %s: %w: %w", hash, errIncomplete, err))
	}
	if plumbing.ComputeHash(found.Type(), content) != hash {
		return nil, s.missing(fmt.Errorf("object %s: its content is another one's: %w", hash, errIncomplete))
	}
	return content, nil
}

// commit reads a commit of either generation; the lock must be held.
func (s *Store) commit(hash plumbing.Hash) (*object.Commit, error) {
	return object.GetCommit(s.disk, hash)
}

func commitOf(c *object.Commit) gitsource.Commit {
	out := gitsource.Commit{
		ID: idOf(c.Hash), Tree: idOf(c.TreeHash), Message: c.Message,
		Author:    gitsource.Person{Name: c.Author.Name, Email: c.Author.Email, When: c.Author.When},
		Committer: gitsource.Person{Name: c.Committer.Name, Email: c.Committer.Email, When: c.Committer.When},
	}
	for _, parent := range c.ParentHashes {
		out.Parents = append(out.Parents, idOf(parent))
	}
	return out
}

// Log returns the newest limit commits that from can reach over all parents, newest first by
// the committer's time. History that is not here is fetched as far as it is needed.
func (s *Store) Log(ctx context.Context, from gitsource.ObjectID, limit int) ([]gitsource.Commit, error) {
	hash, err := s.bring(ctx, from)
	if err != nil {
		return nil, err
	}
	var commits []gitsource.Commit
	err = s.withHistory(ctx, []plumbing.Hash{hash}, limit, func() error {
		commits = nil
		walk := newWalk(s, hash)
		for len(commits) < limit {
			commit, err := walk.next()
			if err != nil {
				return err
			}
			if commit == nil {
				return nil
			}
			commits = append(commits, commitOf(commit))
		}
		return nil
	})
	return commits, err
}

// MergeBase returns the newest commit that both can reach; gitsource.ErrNotFound if there is none.
func (s *Store) MergeBase(ctx context.Context, a, b gitsource.ObjectID) (gitsource.ObjectID, error) {
	hashA, err := s.bring(ctx, a)
	if err != nil {
		return "", err
	}
	hashB, err := s.bring(ctx, b)
	if err != nil {
		return "", err
	}
	var base gitsource.ObjectID
	err = s.withHistory(ctx, []plumbing.Hash{hashA, hashB}, firstDeepening, func() error {
		best, err := newWalk(s, hashA, hashB).common()
		if err == nil && best == nil {
			err = fmt.Errorf("merge base of %s and %s: %w", a, b, gitsource.ErrNotFound)
		}
		if err == nil {
			base = idOf(best.Hash)
		}
		return err
	})
	return base, err
}

const firstDeepening = 50

// errShallow says that a walk came to the end of the history that is here.
var errShallow = errors.New("the history here ends too early")

// withHistory calls f, under the lock, with more and more history until it does not fail with errShallow.
func (s *Store) withHistory(ctx context.Context, tips []plumbing.Hash, depth int, f func() error) error {
	depth = max(depth, firstDeepening)
	for {
		s.mu.Lock()
		err := f()
		s.mu.Unlock()
		if !errors.Is(err, errShallow) {
			return err
		}
		if depth > deepest {
			depth = everything
		}
		if err := s.deepen(ctx, tips, depth); err != nil {
			return err
		}
		if depth == everything {
			s.mu.Lock()
			defer s.mu.Unlock()
			if err := f(); !errors.Is(err, errShallow) {
				return err
			}
			return s.missing(fmt.Errorf("history of %s: it ends although the host has sent all: %w", s.url, errIncomplete))
		}
		depth *= 10
	}
}

// deepest is what history is fetched step by step to; beyond, all of it is.
const deepest = 100_000

// deepen fetches depth commits of the history of each tip.
func (s *Store) deepen(ctx context.Context, tips []plumbing.Hash, depth int) error {
	if err := s.network.acquire(ctx); err != nil {
		return err
	}
	defer s.network.release()
	s.mu.Lock()
	disk, from := s.disk.storage, s.fetched(tips)
	s.mu.Unlock()
	if len(from) == 0 {
		return nil
	}
	return s.fetchAlone(ctx, disk, want{ids: from, depth: depth})
}

// fetched returns the tips, but instead of commits that were made here, of which the
// host may know nothing, what they were made from. The lock must be held.
func (s *Store) fetched(tips []plumbing.Hash) []plumbing.Hash {
	var from []plumbing.Hash
	seen := map[plumbing.Hash]bool{}
	for todo := slices.Clone(tips); len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		if seen[at] {
			continue
		}
		seen[at] = true
		if commit, err := s.commit(at); err == nil && s.disk.madeHere(at) {
			todo = append(todo, commit.ParentHashes...)
			continue
		}
		from = append(from, at)
	}
	return from
}

// walk visits commits newest first.
type walk struct {
	store   *Store
	pending []*object.Commit
	marks   map[plumbing.Hash]int // fromFirst, fromSecond, below
	ended   bool                  // a commit is not here
}

// What a walk knows of a commit.
const (
	fromFirst  = 1 << iota // the first start reaches it
	fromSecond             // the second start reaches it
	below                  // so does another commit that both reach
	fromBoth   = fromFirst | fromSecond
)

func newWalk(s *Store, starts ...plumbing.Hash) *walk {
	w := &walk{store: s, marks: map[plumbing.Hash]int{}}
	for i, start := range starts {
		w.visit(start, 1<<i)
	}
	return w
}

// visit adds marks to a commit; a commit with new marks is visited again, to hand them on.
func (w *walk) visit(hash plumbing.Hash, marks int) {
	old, seen := w.marks[hash]
	if seen && old|marks == old {
		return
	}
	w.marks[hash] = old | marks
	commit, err := w.store.commit(hash)
	if err != nil {
		w.ended = true
		return
	}
	for _, waiting := range w.pending {
		if waiting.Hash == hash {
			return
		}
	}
	w.pending = append(w.pending, commit)
}

// next returns the newest commit that waits; nil at the end.
func (w *walk) next() (*object.Commit, error) {
	if w.ended {
		return nil, errShallow
	}
	if len(w.pending) == 0 {
		return nil, nil
	}
	newest := 0
	for i, commit := range w.pending {
		if later(commit, w.pending[newest]) {
			newest = i
		}
	}
	commit := w.pending[newest]
	w.pending = append(w.pending[:newest], w.pending[newest+1:]...)
	marks := w.marks[commit.Hash]
	if marks&fromBoth == fromBoth {
		marks |= below
	}
	for _, parent := range commit.ParentHashes {
		w.visit(parent, marks)
	}
	return commit, nil
}

// common returns the newest commit that both starts reach and no other such commit does.
func (w *walk) common() (*object.Commit, error) {
	found := map[plumbing.Hash]*object.Commit{}
	for w.undecided() {
		commit, err := w.next()
		if err != nil {
			return nil, err
		}
		if w.marks[commit.Hash]&fromBoth == fromBoth {
			found[commit.Hash] = commit
		}
	}
	var best *object.Commit
	for hash, commit := range found {
		if w.marks[hash]&below == 0 && (best == nil || later(commit, best)) {
			best = commit
		}
	}
	return best, nil
}

// undecided reports whether a commit waits that is not below a common one already.
func (w *walk) undecided() bool {
	for _, commit := range w.pending {
		if w.marks[commit.Hash]&below == 0 {
			return true
		}
	}
	return false
}

// later orders by time; a child comes before its parent also when both were made in the same second.
func later(a, b *object.Commit) bool {
	if !a.Committer.When.Equal(b.Committer.When) {
		return a.Committer.When.After(b.Committer.When)
	}
	return slices.Contains(a.ParentHashes, b.Hash)
}
