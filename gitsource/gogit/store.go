// Package gogit reads and writes one Git repository over http, https or ssh, by go-git.
//
// A Store is a bare, shallow object store on disk, one per URL. It promises that
// following a branch costs one listing of refs, and objects only when the branch
// moved; that a push is a compare-and-swap; and that nothing of a repository is
// ever executed or checked out. The store may be lost at any time: it is made
// anew from the host.
//
// It refuses to guess: that a host did not answer is never taken for "not there",
// and credentials never appear in an error. One process uses a store's folder at a
// time; several do no harm that the next fetch does not mend, but they cost each
// other downloads.
package gogit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/slipway-cd/slipway/gitsource"
)

// Options of a Store.
type Options struct {
	Dir  string // owned by the Store; made if it is not there
	URL  string // http, https or ssh://USER@HOST/PATH, without credentials; or a local path or file URL, for which git must be installed
	Auth *Auth  // nil for anonymous; required for ssh
	// Sign returns the signature over a commit as Git stores it without one; nil for commits that are not signed.
	Sign func(payload []byte) (string, error)
	// MaxPacks is after how many fetches the store is made anew, because packs
	// are never merged; default 50.
	MaxPacks int
	// Now tells how long ago a broken store was made anew: what is broken on the
	// host's side must not be downloaded again and again. Default time.Now.
	Now func() time.Time
}

// Store is one repository. Its methods may be called from several goroutines.
type Store struct {
	dir      string
	url      string
	maxPacks int
	now      func() time.Time
	signs    func(payload []byte) (string, error)
	remote   *remote

	network  semaphore // one fetch at a time
	listings listings

	mu      sync.Mutex // guards all below: go-git's storage is not safe for concurrent use
	disk    *layers
	current int // generation, the folder's name
	packed  int // packs that the generation began with
	suspect bool
	mended  time.Time // when a suspect store was last made anew
	trees   map[plumbing.Hash]*object.Tree
	entries int // of all trees
}

const (
	defaultMaxPacks = 50
	// objectCache bounds decoded objects in memory, for each of two generations.
	objectCache = 16 * cache.MiByte
	// maxEntries bounds the directories kept decoded; about 100 bytes each.
	maxEntries = 100_000
	// mendAfter is how long a store that was made anew because something was
	// missing is left alone, should something be missing again.
	mendAfter = 5 * time.Minute
)

// Open opens the store of a URL, or makes an empty one. It does not use the
// network: a store that turns out to be broken is made anew by the next fetch,
// which saves of the pinned commits what can be saved.
func Open(_ context.Context, o Options) (*Store, error) {
	if o.Dir == "" {
		return nil, errors.New("git store: a folder is required")
	}
	if o.MaxPacks <= 0 {
		o.MaxPacks = defaultMaxPacks
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r, err := newRemote(o.Dir, o.URL, o.Auth, o.Now)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: o.Dir, url: o.URL, maxPacks: o.MaxPacks, now: o.Now, signs: o.Sign, remote: r, network: newSemaphore()}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, s.roomy(fmt.Errorf("git store: %w", err))
	}
	generations, err := s.generations()
	if err != nil {
		return nil, err
	}
	current := 1
	if len(generations) > 0 {
		current = generations[len(generations)-1]
	} else if _, err := create(s.folder(current)); err != nil {
		return nil, s.roomy(err)
	}
	disk := &layers{storage: open(s.folder(current))}
	s.use(disk, current, 0)
	s.suspect = sound(disk.storage) != nil
	if err := s.removeAllBut(current); err != nil {
		return nil, err
	}
	return s, removeLeftovers(s.folder(current))
}

// A store is a folder of generations, 1, 2, ...; the newest is used. Making the
// store anew is making the next generation, under a name that ends in .new until
// it is whole. The one before stays until then, for those who still read from it.
func (s *Store) folder(generation int) string { return filepath.Join(s.dir, strconv.Itoa(generation)) }

const unfinished = ".new"

func (s *Store) generations() ([]int, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("git store: %w", err)
	}
	var found []int
	for _, entry := range entries {
		if n, err := strconv.Atoi(entry.Name()); err == nil && entry.IsDir() {
			found = append(found, n)
		}
	}
	slices.Sort(found)
	return found, nil
}

// removeAllBut removes other generations, and those that were never finished.
func (s *Store) removeAllBut(keep ...int) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	for _, entry := range entries {
		name, isUnfinished := strings.CutSuffix(entry.Name(), unfinished)
		generation, err := strconv.Atoi(name)
		if err != nil || (!isUnfinished && slices.Contains(keep, generation)) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, entry.Name())); err != nil {
			return fmt.Errorf("git store: %w", err)
		}
	}
	return nil
}

// removeLeftovers removes what downloads that broke off have left behind.
func removeLeftovers(folder string) error {
	left, err := filepath.Glob(filepath.Join(folder, "objects", "pack", "tmp_*"))
	if err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("git store: %w", err)
		}
	}
	return nil
}

// use begins to read from a generation; the lock must be held, but in Open.
func (s *Store) use(disk *layers, generation, packed int) {
	s.disk, s.current, s.packed, s.suspect = disk, generation, packed, false
	s.trees, s.entries = map[plumbing.Hash]*object.Tree{}, 0
}

// sound fails if the store cannot be read or lacks what its refs name.
func sound(disk storage) error {
	refs, err := localRefs(disk)
	if err != nil {
		return err
	}
	for _, id := range refs {
		if err := readable(disk, id); err != nil {
			return err
		}
	}
	_, err = disk.Shallow()
	return err
}

// missing remembers that an object which must be here is not, so that the next
// fetch makes the store anew. The lock must be held.
func (s *Store) missing(err error) error {
	s.suspect = true
	return err
}

// mustMend says whether the store is to be made anew because something is missing. The lock must be held.
func (s *Store) mustMend() bool {
	return s.suspect && (s.mended.IsZero() || s.now().Sub(s.mended) >= mendAfter)
}

func notFound(err error) error {
	if errors.Is(err, plumbing.ErrObjectNotFound) || errors.Is(err, plumbing.ErrReferenceNotFound) {
		return fmt.Errorf("%w: %w", gitsource.ErrNotFound, err)
	}
	return err
}

func hashOf(id gitsource.ObjectID) (plumbing.Hash, error) {
	if len(id) != 40 {
		return plumbing.ZeroHash, fmt.Errorf("object id %q: only SHA-1 repositories can be read", id)
	}
	if _, err := gitsource.ParseObjectID(string(id)); err != nil {
		return plumbing.ZeroHash, err
	}
	return plumbing.NewHash(string(id)), nil
}

func idOf(hash plumbing.Hash) gitsource.ObjectID {
	if hash.IsZero() {
		return ""
	}
	return gitsource.ObjectID(hash.String())
}

// semaphore is a lock that is given up waiting for when the context ends.
type semaphore chan struct{}

func newSemaphore() semaphore { return make(semaphore, 1) }

func (s semaphore) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("waiting for another fetch: %w: %w", gitsource.ErrUnreachable, err)
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another fetch: %w: %w", gitsource.ErrUnreachable, ctx.Err())
	}
}

func (s semaphore) release() { <-s }
