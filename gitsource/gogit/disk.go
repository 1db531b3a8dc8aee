package gogit

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// storage is one generation on disk.
type storage struct {
	*filesystem.Storage
	folder string
	refs   *refs
}

func open(folder string) storage {
	return storage{Storage: filesystem.NewStorage(osfs.New(folder), cache.NewObjectLRU(objectCache)), folder: folder, refs: &refs{}}
}

// refs are our own refs as they are on disk, once they were read: each pin is a file, and a thousand of them must not be
// read for each fetch.
type refs struct {
	mu    sync.Mutex
	known map[plumbing.ReferenceName]plumbing.Hash // nil: not read yet
}

// localRefs returns the refs below refs/slipway/. The map is the caller's.
func localRefs(disk storage) (map[plumbing.ReferenceName]plumbing.Hash, error) {
	disk.refs.mu.Lock()
	defer disk.refs.mu.Unlock()
	if disk.refs.known != nil {
		return maps.Clone(disk.refs.known), nil
	}
	iter, err := disk.IterReferences()
	if err != nil {
		return nil, err
	}
	found := map[plumbing.ReferenceName]plumbing.Hash{}
	err = iter.ForEach(func(ref *plumbing.Reference) error {
		if ref.Type() == plumbing.HashReference && strings.HasPrefix(string(ref.Name()), "refs/slipway/") {
			found[ref.Name()] = ref.Hash()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	disk.refs.known = found
	return maps.Clone(found), nil
}

// SetReference writes a ref of ours. What became of one that could not be written is read from the disk.
func (d storage) SetReference(ref *plumbing.Reference) error {
	d.refs.mu.Lock()
	defer d.refs.mu.Unlock()
	if err := d.Storage.SetReference(ref); err != nil {
		d.refs.known = nil
		return err
	}
	if d.refs.known != nil {
		d.refs.known[ref.Name()] = ref.Hash()
	}
	return nil
}

// RemoveReference removes a ref of ours.
func (d storage) RemoveReference(name plumbing.ReferenceName) error {
	d.refs.mu.Lock()
	defer d.refs.mu.Unlock()
	if err := d.Storage.RemoveReference(name); err != nil {
		d.refs.known = nil
		return err
	}
	delete(d.refs.known, name)
	return nil
}

func create(folder string) (storage, error) {
	disk := open(folder)
	if err := disk.Init(); err != nil {
		return storage{}, fmt.Errorf("git store %s: %w", folder, err)
	}
	return disk, nil
}

// layers is the generation in use and, behind it, the one before: Snapshots of that
// are still read, and commits made there may not be pushed yet.
//
// What is in the generation in use is there with all that its trees hold; nothing
// in it may depend on the one before (settle sees to that).
type layers struct {
	storage
	before *storage // nil if there is none
}

// EncodedObject looks into both.
func (l *layers) EncodedObject(t plumbing.ObjectType, hash plumbing.Hash) (plumbing.EncodedObject, error) {
	found, err := l.storage.EncodedObject(t, hash)
	if err == nil || l.before == nil {
		return found, err
	}
	if old, oldErr := l.before.EncodedObject(t, hash); oldErr == nil {
		return old, nil
	}
	return nil, err
}

// HasEncodedObject looks into both.
func (l *layers) HasEncodedObject(hash plumbing.Hash) error {
	err := l.storage.HasEncodedObject(hash)
	if err == nil || l.before == nil {
		return err
	}
	return l.before.HasEncodedObject(hash)
}

// EncodedObjectSize looks into both.
func (l *layers) EncodedObjectSize(hash plumbing.Hash) (int64, error) {
	size, err := l.storage.EncodedObjectSize(hash)
	if err == nil || l.before == nil {
		return size, err
	}
	return l.before.EncodedObjectSize(hash)
}

// madeHere tells commits that this store wrote, loose files, from those that a
// pack brought: those the host has.
func (l *layers) madeHere(hash plumbing.Hash) bool {
	return l.loose(hash) || (l.before != nil && l.before.loose(hash))
}

func (d storage) loose(hash plumbing.Hash) bool {
	name := hash.String()
	_, err := os.Stat(filepath.Join(d.folder, "objects", name[:2], name[2:]))
	return err == nil
}

// has reports whether an object is here, with all that it holds.
func (d storage) has(hash plumbing.Hash) bool { return d.HasEncodedObject(hash) == nil }

func (d storage) packs() int {
	entries, err := os.ReadDir(filepath.Join(d.folder, "objects", "pack"))
	if err != nil {
		return 0
	}
	n := 0
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".pack") {
			n++
		}
	}
	return n
}

// readable fails if a commit or its root directory cannot be read.
func readable(from storer.EncodedObjectStorer, commit plumbing.Hash) error {
	c, err := object.GetCommit(from, commit)
	if err != nil {
		return err
	}
	if _, err := object.GetTree(from, c.TreeHash); err != nil {
		return fmt.Errorf("tree %s of commit %s: %w", c.TreeHash, commit, errIncomplete)
	}
	return nil
}

// updateShallow changes the list of commits whose parents are not here, all at once.
func (d storage) updateShallow(added, removed []plumbing.Hash) error {
	if len(added)+len(removed) == 0 {
		return nil
	}
	shallow, err := d.Shallow()
	if err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	shallow = slices.DeleteFunc(shallow, func(h plumbing.Hash) bool { return slices.Contains(removed, h) })
	var lines strings.Builder
	for _, hash := range added {
		if !slices.Contains(shallow, hash) {
			shallow = append(shallow, hash)
		}
	}
	for _, hash := range shallow {
		lines.WriteString(hash.String() + "\n")
	}
	return replaceFile(filepath.Join(d.folder, "shallow"), lines.String())
}

func replaceFile(name, content string) error {
	if err := os.WriteFile(name+".new", []byte(content), 0o600); err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	return nil
}

// tree returns a decoded directory; the lock must be held. A name that could lead
// elsewhere makes the whole directory unreadable: Git itself never writes one.
func (s *Store) tree(hash plumbing.Hash) (*object.Tree, error) {
	if cached, found := s.trees[hash]; found {
		return cached, nil
	}
	decoded, err := object.GetTree(s.disk, hash)
	if err != nil {
		// %v: a file that is missing on our disk must not look like a path that the tree does not have.
		return nil, fmt.Errorf("tree %s: %w: %v", hash, errIncomplete, err) //nolint:errorlint // just said
	}
	for _, entry := range decoded.Entries {
		if entry.Name == "." || !fs.ValidPath(entry.Name) || strings.ContainsAny(entry.Name, "/\x00") {
			return nil, fmt.Errorf("tree %s: has an entry named %q, which cannot be read", hash, entry.Name)
		}
	}
	if s.entries += len(decoded.Entries); s.entries > maxEntries {
		clear(s.trees)
		s.entries = len(decoded.Entries)
	}
	s.trees[hash] = decoded
	return decoded, nil
}
