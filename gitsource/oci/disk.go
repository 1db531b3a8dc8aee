package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
)

// On disk, blobs/ID holds the content of files, shared by all artifacts, and trees/KEY.json what is where in one of them.
// The key holds where it came from besides its digest: who may name a digest must not see the content of a repository that
// only others may read. pins/NAME.KEY keeps an artifact from being removed.

// stored is one path of a tree on disk; folders come before what is in them.
type stored struct {
	Path   string              `json:"p"`
	Kind   gitsource.EntryKind `json:"k"`
	ID     gitsource.ObjectID  `json:"i,omitempty"` // of a file
	Size   int64               `json:"s,omitempty"`
	Target string              `json:"t,omitempty"`
}

func (s *Store) treeFile(key string) string { return filepath.Join(s.treesDir(), key+".json") }

func (s *Store) blobFile(id gitsource.ObjectID) string {
	return filepath.Join(s.blobsDir(), string(id[:2]), string(id))
}

// find returns a tree that is here, or nil.
func (s *Store) find(key string) *tree {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, found := s.open[key]; found {
		s.remember(known)
		return known
	}
	content, err := os.ReadFile(s.treeFile(key))
	if err != nil {
		return nil
	}
	loaded, err := decodeTree(content)
	if err != nil {
		_ = os.Remove(s.treeFile(key)) // damaged: it is pulled again
		return nil
	}
	loaded.store, loaded.key = s, key
	s.remember(loaded)
	return loaded
}

// remember puts t in memory as the one used last, also for the next start. The lock must be held.
func (s *Store) remember(t *tree) {
	s.forget(t.key)
	s.open[t.key] = t
	s.order = append(s.order, t.key)
	if len(s.order) > maxOpen {
		s.forget(s.order[0])
	}
	now := s.now()
	_ = os.Chtimes(s.treeFile(t.key), now, now)
}

func (s *Store) forget(key string) {
	delete(s.open, key)
	s.order = slices.DeleteFunc(s.order, func(other string) bool { return other == key })
}

// put moves the blobs of a staging folder into the store and notes the tree.
func (s *Store) put(key string, root *node, staging string) (*tree, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	made := &tree{store: s, key: key, root: root}
	listed := flatten(root, ".", nil)
	for _, one := range listed {
		made.size += one.Size
		if one.Kind != gitsource.File && one.Kind != gitsource.Executable {
			continue
		}
		if err := s.take(filepath.Join(staging, string(one.ID)), one.ID); err != nil {
			return nil, fmt.Errorf("artifacts: %w", err)
		}
	}
	content, err := json.Marshal(listed)
	if err != nil {
		return nil, fmt.Errorf("artifacts: %w", err)
	}
	sum := sha256.Sum256(content)
	if err := replaceFile(s.treeFile(key), append([]byte(hex.EncodeToString(sum[:])+"\n"), content...)); err != nil {
		return nil, fmt.Errorf("artifacts: %w", err)
	}
	s.remember(made)
	return made, s.trim(key)
}

// take moves a staged blob to its place. The same content may be in an artifact twice, and then is staged once.
func (s *Store) take(from string, id gitsource.ObjectID) error {
	to := s.blobFile(id)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	err := os.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(to)
	}
	return err
}

func replaceFile(name string, content []byte) error {
	temporary := name + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, name)
}

func flatten(n *node, at string, all []stored) []stored {
	for _, name := range sortedNames(n.children) {
		child := n.children[name]
		one := stored{Path: path.Join(at, name), Kind: child.kind, ID: child.id, Size: child.size, Target: child.target}
		if child.kind == gitsource.Directory {
			one.ID = ""
		}
		all = append(all, one)
		all = flatten(child, one.Path, all)
	}
	return all
}

// decodeTree reads what put wrote: a line with the sum of the rest, then the rest.
func decodeTree(content []byte) (*tree, error) {
	sum, body, _ := strings.Cut(string(content), "\n")
	want := sha256.Sum256([]byte(body))
	if sum != hex.EncodeToString(want[:]) {
		return nil, errors.New("damaged")
	}
	var listed []stored
	if err := json.Unmarshal([]byte(body), &listed); err != nil {
		return nil, err
	}
	t := &tree{root: &node{kind: gitsource.Directory, children: map[string]*node{}}}
	folders := map[string]*node{".": t.root}
	for _, one := range listed {
		n := &node{name: path.Base(one.Path), kind: one.Kind, id: one.ID, size: one.Size, target: one.Target}
		switch one.Kind {
		case gitsource.Directory:
			n.children = map[string]*node{}
			folders[one.Path] = n
		case gitsource.Symlink:
			n.id = blobID([]byte(one.Target))
		}
		folders[path.Dir(one.Path)].children[n.name] = n
		t.size += one.Size
	}
	t.root.seal()
	return t, nil
}

// blob reads a file and checks its content: what the disk has changed is never applied.
func (s *Store) blob(key string, n *node) ([]byte, error) {
	content, err := os.ReadFile(s.blobFile(n.id))
	if err == nil && blobID(content) == n.id {
		return content, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(key)
	_ = os.Remove(s.treeFile(key))
	return nil, fmt.Errorf("blob %s is damaged or no longer in the cache (the artifact is pulled again): %w", n.id.Short(), gitsource.ErrUnreachable)
}

// kept is one tree on disk, for trim.
type kept struct {
	key  string
	used time.Time
	tree *tree
}

// trim removes the artifacts that were not used for longest until the rest fits. The lock must be held.
func (s *Store) trim(added string) error {
	names, err := filepath.Glob(filepath.Join(s.treesDir(), "*.json"))
	if err != nil {
		return err
	}
	var all []kept
	var total int64
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			continue
		}
		loaded, err := decodeTree(content)
		if err != nil {
			_ = os.Remove(name)
			continue
		}
		all = append(all, kept{key: strings.TrimSuffix(filepath.Base(name), ".json"), used: info.ModTime(), tree: loaded})
		total += loaded.size
	}
	if total <= s.limits.Kept {
		return nil
	}
	slices.SortFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	pinned := s.pinned()
	var rest []kept
	for _, one := range all {
		if total <= s.limits.Kept || one.key == added || pinned[one.key] {
			rest = append(rest, one)
			continue
		}
		total -= one.tree.size
		s.forget(one.key)
		if err := os.Remove(s.treeFile(one.key)); err != nil {
			return fmt.Errorf("artifacts: %w", err)
		}
	}
	return s.sweep(rest)
}

// sweep removes the blobs that no tree holds.
func (s *Store) sweep(all []kept) error {
	held := map[string]bool{}
	for _, one := range all {
		for _, entry := range flatten(one.tree.root, ".", nil) {
			held[string(entry.ID)] = true
		}
	}
	return filepath.WalkDir(s.blobsDir(), func(name string, found fs.DirEntry, err error) error {
		if err != nil || found.IsDir() || held[found.Name()] {
			return err
		}
		return os.Remove(name)
	})
}

// pinned returns the keys that somebody needs.
func (s *Store) pinned() map[string]bool {
	keys := map[string]bool{}
	entries, _ := os.ReadDir(s.pinsDir())
	for _, pin := range entries {
		content, err := os.ReadFile(filepath.Join(s.pinsDir(), pin.Name()))
		if err == nil {
			keys[string(content)] = true
		}
	}
	return keys
}

// Pin keeps what id names readable under a name, for as long as the cache lasts; an earlier pin of that name is replaced.
func (a *Artifact) Pin(name string, id gitsource.ObjectID) error {
	if a.store.find(a.key(id)) == nil {
		return fmt.Errorf("%s: pin %s: %w", a.subject(id), name, gitsource.ErrNotFound)
	}
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	return replaceFile(a.pinFile(name), []byte(a.key(id)))
}

// Unpin takes a pin away; one that is not there is none.
func (a *Artifact) Unpin(name string) error {
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	if err := os.Remove(a.pinFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (a *Artifact) pinFile(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(a.store.pinsDir(), hex.EncodeToString(sum[:16]))
}
