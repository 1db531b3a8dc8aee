// Package gogit reads and writes one Git repository over http or https, by go-git.
//
// A Store is a bare, shallow object store on disk, one per URL. It promises that
// following a branch costs one listing of refs, and objects only when the branch
// moved; that a push is a compare-and-swap; and that nothing of a repository is
// ever executed or checked out. The store may be lost at any time: it is made
// anew from the host.
//
// It refuses to guess: that a host did not answer is never taken for "not there",
// and credentials never appear in an error.
package gogit

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/policy"
)

// Auth is HTTP basic authentication. Hosts that use tokens take one as the
// password, with any or a fixed user name.
type Auth struct {
	Username string
	Password policy.Secret
}

// Options of a Store.
type Options struct {
	Dir  string // owned by the Store; made if it is not there
	URL  string // http or https, without credentials; or a local path, for which git must be installed
	Auth *Auth  // nil for anonymous
	// MaxPacks is after how many fetches the store is made anew, because packs
	// are never merged; default 50.
	MaxPacks int
}

// Store is one repository. Its methods may be called from several goroutines.
type Store struct {
	dir      string
	url      string
	maxPacks int
	remote   *remote

	network sync.Mutex // one fetch at a time

	mu      sync.Mutex // guards all below: go-git's storage is not safe for concurrent use
	disk    *filesystem.Storage
	current int // generation, the folder's name
	suspect bool
	trees   map[plumbing.Hash]*object.Tree
}

const (
	defaultMaxPacks = 50
	// objectCache bounds decoded objects in memory.
	objectCache = 16 * cache.MiByte
	// largestTrees bounds the directories kept decoded.
	largestTrees = 4096
)

// Open opens the store of a URL, or makes an empty one. It does not use the network.
func Open(_ context.Context, o Options) (*Store, error) {
	if o.Dir == "" {
		return nil, errors.New("git store: a folder is required")
	}
	if o.MaxPacks == 0 {
		o.MaxPacks = defaultMaxPacks
	}
	r, err := newRemote(o.URL, o.Auth)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: o.Dir, url: o.URL, maxPacks: o.MaxPacks, remote: r}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("git store: %w", err)
	}
	generations, err := s.generations()
	if err != nil {
		return nil, err
	}
	for _, generation := range slices.Backward(generations) {
		disk := open(s.folder(generation))
		if sound(disk) == nil {
			s.use(disk, generation)
			return s, s.removeOthers()
		}
	}
	generation := 1
	if len(generations) > 0 {
		generation = generations[len(generations)-1] + 1
	}
	disk, err := create(s.folder(generation))
	if err != nil {
		return nil, err
	}
	s.use(disk, generation)
	return s, s.removeOthers()
}

// A store is a folder of generations, 1, 2, ...; the newest sound one is used. Making
// the store anew is making the next generation.
func (s *Store) folder(generation int) string { return filepath.Join(s.dir, strconv.Itoa(generation)) }

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

func (s *Store) removeOthers() error {
	generations, err := s.generations()
	if err != nil {
		return err
	}
	for _, generation := range generations {
		if generation != s.current {
			if err := os.RemoveAll(s.folder(generation)); err != nil {
				return fmt.Errorf("git store: %w", err)
			}
		}
	}
	return nil
}

func (s *Store) use(disk *filesystem.Storage, generation int) {
	s.disk, s.current, s.suspect = disk, generation, false
	s.trees = map[plumbing.Hash]*object.Tree{}
}

func open(folder string) *filesystem.Storage {
	return filesystem.NewStorage(osfs.New(folder), cache.NewObjectLRU(objectCache))
}

func create(folder string) (*filesystem.Storage, error) {
	disk := open(folder)
	if err := disk.Init(); err != nil {
		return nil, fmt.Errorf("git store %s: %w", folder, err)
	}
	return disk, nil
}

// sound fails if the store cannot be read or lacks what its refs name.
func sound(disk *filesystem.Storage) error {
	refs, err := localRefs(disk)
	if err != nil {
		return err
	}
	for _, id := range refs {
		commit, err := object.GetCommit(disk, id)
		if err != nil {
			return err
		}
		if _, err := commit.Tree(); err != nil {
			return err
		}
	}
	_, err = disk.Shallow()
	return err
}

// Names of local refs. Their objects survive making the store anew.
const (
	tipPrefix     = "refs/slipway/tips/"    // + the ref on the host: where it was last seen
	healthyPrefix = "refs/slipway/healthy/" // + a pin's name
)

func localRefs(disk *filesystem.Storage) (map[plumbing.ReferenceName]plumbing.Hash, error) {
	iter, err := disk.IterReferences()
	if err != nil {
		return nil, err
	}
	refs := map[plumbing.ReferenceName]plumbing.Hash{}
	err = iter.ForEach(func(ref *plumbing.Reference) error {
		if ref.Type() == plumbing.HashReference && strings.HasPrefix(string(ref.Name()), "refs/slipway/") {
			refs[ref.Name()] = ref.Hash()
		}
		return nil
	})
	return refs, err
}

// Pin keeps a commit readable under a name, also when the branch leaves it behind. The commit must be here.
func (s *Store) Pin(name string, id gitsource.ObjectID) error {
	if !pinnable(name) {
		return fmt.Errorf("pin %q: not a name", name)
	}
	hash, err := hashOf(id)
	if err != nil {
		return fmt.Errorf("pin %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ref := plumbing.ReferenceName(healthyPrefix + name)
	if old, err := s.disk.Reference(ref); err == nil && old.Hash() == hash {
		return nil
	}
	if _, err := object.GetCommit(s.disk, hash); err != nil {
		return s.missing(fmt.Errorf("pin %s: commit %s: %w", name, id, notFound(err)))
	}
	return s.disk.SetReference(plumbing.NewHashReference(ref, hash))
}

// Unpin forgets a pin; one that is not there is no error.
func (s *Store) Unpin(name string) error {
	if !pinnable(name) {
		return fmt.Errorf("pin %q: not a name", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disk.RemoveReference(plumbing.ReferenceName(healthyPrefix + name))
}

func pinnable(name string) bool {
	return plumbing.ReferenceName(healthyPrefix+name).Validate() == nil && !strings.Contains(name, "..")
}

// missing remembers that an object which must be here is not, so that the next
// fetch makes the store anew.
func (s *Store) missing(err error) error {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.suspect = true
	}
	return err
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

// checkURL refuses credentials in the URL: they would end up in messages.
func checkURL(raw string) (*url.URL, error) {
	parsed, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("git url: it cannot be parsed; want https://HOST/PATH")
	}
	if parsed.User != nil {
		return nil, fmt.Errorf("git url of host %s: has credentials in it; give them apart (in a Secret, or by git's credential helper)", parsed.Host)
	}
	return parsed, nil
}

func tipName(ref string) plumbing.ReferenceName {
	return plumbing.ReferenceName(tipPrefix + strings.TrimPrefix(ref, "refs/"))
}
