package gogit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/slipway-cd/slipway/gitsource"
)

// Snapshot returns the tree of a Revision that is here already; gitsource.ErrNotFound if it is not.
func (s *Store) Snapshot(revision gitsource.Revision) (gitsource.Snapshot, error) {
	hash, err := hashOf(revision.ID)
	if err != nil {
		return gitsource.Snapshot{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.readable(hash); err != nil {
		return gitsource.Snapshot{}, fmt.Errorf("commit %s: %w", revision.ID, err)
	}
	commit, err := s.commit(hash)
	if err != nil {
		return gitsource.Snapshot{}, fmt.Errorf("commit %s: git store: %w", revision.ID, err)
	}
	return gitsource.Snapshot{Revision: revision, Tree: &tree{store: s, root: commit.TreeHash, generation: s.current}}, nil
}

// SnapshotOf returns the tree of a commit, which is fetched if it is not here.
func (s *Store) SnapshotOf(ctx context.Context, id gitsource.ObjectID) (gitsource.Snapshot, error) {
	if _, err := s.bring(ctx, id); err != nil {
		return gitsource.Snapshot{}, err
	}
	return s.Snapshot(gitsource.Revision{URL: s.url, ID: id})
}

// tree is a gitsource.Tree over Git objects.
type tree struct {
	store      *Store
	root       plumbing.Hash
	generation int // of the store, that it was made of
}

// lost marks the store as broken if something is missing that must be there: of a
// Snapshot that has outlived two generations, that is not to be expected. The lock
// must be held.
func (t *tree) lost(err error) error {
	if errors.Is(err, errIncomplete) && t.generation == t.store.current {
		return t.store.missing(err)
	}
	return err
}

var (
	errLoop    = errors.New("more than 40 symbolic links")
	errOutside = errors.New("the symbolic link leaves the tree")
)

const (
	maxLinks = 40
	// longestTarget is PATH_MAX: what is longer leads nowhere.
	longestTarget = 4096
)

// node is what stands at a path.
type node struct {
	name string
	mode filemode.FileMode
	hash plumbing.Hash
}

// Entry returns what stands at name itself.
func (t *tree) Entry(name string) (gitsource.Entry, error) {
	n, err := t.find(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return gitsource.Entry{}, nil
	}
	if err != nil {
		return gitsource.Entry{}, &fs.PathError{Op: "entry", Path: name, Err: err}
	}
	entry := gitsource.Entry{Kind: kindOf(n.mode), ID: idOf(n.hash)}
	if entry.Kind == gitsource.File || entry.Kind == gitsource.Executable || entry.Kind == gitsource.Symlink {
		if entry.Size, err = t.size(n.hash); err != nil {
			return gitsource.Entry{}, &fs.PathError{Op: "entry", Path: name, Err: err}
		}
	}
	return entry, nil
}

func kindOf(mode filemode.FileMode) gitsource.EntryKind {
	switch mode {
	case filemode.Dir:
		return gitsource.Directory
	case filemode.Executable:
		return gitsource.Executable
	case filemode.Symlink:
		return gitsource.Symlink
	case filemode.Submodule:
		return gitsource.Submodule
	default:
		return gitsource.File
	}
}

// ReadLink returns the target of the symbolic link at name.
func (t *tree) ReadLink(name string) (string, error) {
	n, err := t.find(name, false)
	if err == nil && n.mode != filemode.Symlink {
		err = fs.ErrInvalid
	}
	var content []byte
	if err == nil {
		content, err = t.blob(n.hash)
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(content), nil
}

// ReadFile returns the content of the file that name leads to.
func (t *tree) ReadFile(name string) ([]byte, error) {
	n, err := t.find(name, true)
	if err == nil && (n.mode == filemode.Dir || n.mode == filemode.Submodule) {
		err = errors.New("is a directory")
	}
	var content []byte
	if err == nil {
		content, err = t.blob(n.hash)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return content, nil
}

// ReadDir lists the directory that name leads to, sorted by name.
func (t *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := t.find(name, true)
	if err == nil && n.mode != filemode.Dir {
		err = errors.New("not a directory")
	}
	var entries []fs.DirEntry
	if err == nil {
		entries, err = t.list(n.hash)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return entries, nil
}

// Open opens the file or directory that name leads to.
func (t *tree) Open(name string) (fs.File, error) {
	n, err := t.find(name, true)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	n.name = path.Base(name)
	info := &entry{tree: t, node: n}
	if n.mode == filemode.Dir || n.mode == filemode.Submodule {
		return &directory{entry: info, name: name}, nil
	}
	content, err := t.blob(n.hash)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &openFile{Reader: bytes.NewReader(content), entry: info}, nil
}

// find walks to name. Links on the way are always followed; one at the end only if follow.
func (t *tree) find(name string, follow bool) (node, error) {
	if !fs.ValidPath(name) {
		return node{}, fs.ErrInvalid
	}
	links := 0
	at, dirs := node{name: ".", mode: filemode.Dir, hash: t.root}, []node{}
	todo := strings.Split(name, "/")
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		if at.mode != filemode.Dir {
			return node{}, fs.ErrNotExist
		}
		switch part {
		case ".", "":
			continue
		case "..":
			if len(dirs) == 0 {
				return node{}, errOutside
			}
			at, dirs = dirs[len(dirs)-1], dirs[:len(dirs)-1]
			continue
		}
		next, err := t.child(at.hash, part)
		if err != nil {
			return node{}, err
		}
		if next.mode != filemode.Symlink || (len(todo) == 0 && !follow) {
			dirs = append(dirs, at)
			at = next
			continue
		}
		if links++; links > maxLinks {
			return node{}, errLoop
		}
		if size, err := t.size(next.hash); err != nil {
			return node{}, err
		} else if size > longestTarget {
			return node{}, errOutside
		}
		target, err := t.blob(next.hash)
		if err != nil {
			return node{}, err
		}
		if strings.HasPrefix(string(target), "/") || len(target) == 0 {
			return node{}, errOutside
		}
		todo = append(strings.Split(string(target), "/"), todo...)
	}
	return at, nil
}

func (t *tree) child(dir plumbing.Hash, name string) (node, error) {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	listing, err := s.tree(dir)
	if err != nil {
		return node{}, t.lost(err)
	}
	found, err := listing.FindEntry(name)
	if errors.Is(err, object.ErrEntryNotFound) || errors.Is(err, object.ErrDirectoryNotFound) {
		return node{}, fs.ErrNotExist
	}
	if err != nil {
		return node{}, err
	}
	return node{name: found.Name, mode: found.Mode, hash: found.Hash}, nil
}

func (t *tree) list(hash plumbing.Hash) ([]fs.DirEntry, error) {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	listing, err := s.tree(hash)
	if err != nil {
		return nil, t.lost(err)
	}
	entries := make([]fs.DirEntry, 0, len(listing.Entries))
	for _, e := range listing.Entries {
		entries = append(entries, &entry{tree: t, node: node{name: e.Name, mode: e.Mode, hash: e.Hash}})
	}
	// Git sorts directories as if their names ended in a slash; io/fs wants plain names.
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

func (t *tree) size(hash plumbing.Hash) (int64, error) {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	size, err := s.disk.EncodedObjectSize(hash)
	if err != nil {
		return 0, t.lost(fmt.Errorf("blob %s: %w: %v", hash, errIncomplete, err)) //nolint:errorlint // see tree
	}
	return size, nil
}

func (t *tree) blob(hash plumbing.Hash) ([]byte, error) {
	s := t.store
	s.mu.Lock()
	encoded, err := s.disk.EncodedObject(plumbing.BlobObject, hash)
	if err != nil {
		err = t.lost(fmt.Errorf("blob %s: %w: %v", hash, errIncomplete, err)) //nolint:errorlint // see tree
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	reader, err := encoded.Reader() // it is in memory, and nobody changes it
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", hash, err)
	}
	defer func() { _ = reader.Close() }()
	return io.ReadAll(reader)
}

// entry is a node as io/fs wants it.
type entry struct {
	tree *tree
	node node
}

func (e *entry) Name() string       { return e.node.name }
func (e *entry) IsDir() bool        { return e.Type().IsDir() }
func (e *entry) ModTime() time.Time { return time.Time{} }
func (e *entry) Sys() any           { return nil }
func (e *entry) Type() fs.FileMode  { return e.Mode().Type() }

// Info fails if the size cannot be told.
func (e *entry) Info() (fs.FileInfo, error) {
	if e.node.mode != filemode.Dir && e.node.mode != filemode.Submodule {
		if _, err := e.tree.size(e.node.hash); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *entry) Size() int64 {
	if e.node.mode == filemode.Dir || e.node.mode == filemode.Submodule {
		return 0
	}
	size, err := e.tree.size(e.node.hash)
	if err != nil {
		return 0
	}
	return size
}

func (e *entry) Mode() fs.FileMode {
	switch e.node.mode {
	case filemode.Dir, filemode.Submodule:
		return fs.ModeDir | 0o555
	case filemode.Executable:
		return 0o555
	case filemode.Symlink:
		return fs.ModeSymlink | 0o444
	default:
		return 0o444
	}
}

type openFile struct {
	*bytes.Reader
	entry *entry
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.entry, nil }
func (f *openFile) Close() error               { return nil }

type directory struct {
	entry *entry
	name  string
	rest  []fs.DirEntry
	read  bool
}

func (d *directory) Stat() (fs.FileInfo, error) { return d.entry, nil }
func (d *directory) Close() error               { return nil }

func (d *directory) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("is a directory")}
}

func (d *directory) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read && d.entry.node.mode == filemode.Dir {
		entries, err := d.entry.tree.list(d.entry.node.hash)
		if err != nil {
			return nil, &fs.PathError{Op: "readdir", Path: d.name, Err: err}
		}
		d.rest = entries
	}
	d.read = true
	if n <= 0 {
		all := d.rest
		d.rest = nil
		return all, nil
	}
	if len(d.rest) == 0 {
		return nil, io.EOF
	}
	some := d.rest[:min(n, len(d.rest))]
	d.rest = d.rest[len(some):]
	return some, nil
}
