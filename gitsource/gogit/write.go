package gogit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/slipway-cd/slipway/gitsource"
)

// WriteTree returns the tree of the commit base, which may be empty, with changes
// made. Equal inputs give equal ids. Directories that end up empty are left out, as
// Git does. Nothing is pushed.
func (s *Store) WriteTree(base gitsource.ObjectID, changes []gitsource.Change) (gitsource.ObjectID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	root := plumbing.ZeroHash
	if base != "" {
		hash, err := hashOf(base)
		if err != nil {
			return "", err
		}
		if err := s.readable(hash); err != nil {
			return "", fmt.Errorf("commit %s: %w", base, err)
		}
		if err := s.settle(hash); err != nil {
			return "", fmt.Errorf("commit %s: %w", base, err)
		}
		commit, err := s.commit(hash)
		if err != nil {
			return "", fmt.Errorf("commit %s: git store: %w", base, err)
		}
		root = commit.TreeHash
	}
	edits := newEdits()
	for _, change := range changes {
		if err := checkPath(change.Path); err != nil {
			return "", err
		}
		edits.add(strings.Split(change.Path, "/"), change)
	}
	hash, err := s.edit(root, edits)
	if errors.Is(err, errIncomplete) {
		return "", s.missing(err)
	}
	if err != nil {
		return "", err
	}
	if hash.IsZero() {
		hash, err = s.write(&object.Tree{})
	}
	return idOf(hash), err
}

// checkPath refuses what Git itself refuses, and what could leave the tree.
func checkPath(name string) error {
	if !fs.ValidPath(name) || name == "." {
		return fmt.Errorf("path %q: want a path from the root of the repository, without dots", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if isDotGit(part) || strings.ContainsRune(part, 0) {
			return fmt.Errorf("path %q: %q cannot be part of a tree", name, part)
		}
	}
	return nil
}

// isDotGit recognises .git, also as the file systems of other machines spell it.
func isDotGit(name string) bool {
	if at := strings.IndexAny(name, `:\`); at >= 0 {
		name = name[:at]
	}
	name = strings.TrimRight(name, " .")
	return strings.EqualFold(name, ".git") || strings.EqualFold(name, "git~1")
}

// edits are the changes below one directory.
type edits struct {
	files map[string]gitsource.Change
	dirs  map[string]*edits
}

func newEdits() *edits {
	return &edits{files: map[string]gitsource.Change{}, dirs: map[string]*edits{}}
}

func (e *edits) add(parts []string, change gitsource.Change) {
	if len(parts) == 1 {
		e.files[parts[0]] = change
		return
	}
	below, found := e.dirs[parts[0]]
	if !found {
		below = newEdits()
		e.dirs[parts[0]] = below
	}
	below.add(parts[1:], change)
}

// edit returns the directory with the edits made; zero if nothing is left in it. The lock must be held.
func (s *Store) edit(dir plumbing.Hash, e *edits) (plumbing.Hash, error) {
	entries := map[string]object.TreeEntry{}
	if !dir.IsZero() {
		listing, err := s.tree(dir)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		for _, entry := range listing.Entries {
			entries[entry.Name] = entry
		}
	}
	// Removals first: a file may give way to a directory in the same commit.
	for _, name := range slices.Sorted(maps.Keys(e.files)) {
		if e.files[name].Delete && entries[name].Mode != filemode.Dir {
			delete(entries, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.dirs)) {
		below := plumbing.ZeroHash
		if old, found := entries[name]; found {
			if old.Mode != filemode.Dir {
				if onlyDeletes(e.dirs[name]) {
					continue
				}
				return plumbing.ZeroHash, fmt.Errorf("path %q: is a file, so nothing can be written below it", name)
			}
			below = old.Hash
		}
		hash, err := s.edit(below, e.dirs[name])
		if err != nil {
			return plumbing.ZeroHash, err
		}
		delete(entries, name)
		if !hash.IsZero() {
			entries[name] = object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: hash}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.files)) {
		change := e.files[name]
		if change.Delete {
			continue
		}
		old, found := entries[name]
		if found && old.Mode == filemode.Dir {
			return plumbing.ZeroHash, fmt.Errorf("path %q: is a directory, so no file can be written there", change.Path)
		}
		entry, err := s.entryOf(name, old, change)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		entries[name] = entry
	}
	if len(entries) == 0 {
		return plumbing.ZeroHash, nil
	}
	tree := &object.Tree{Entries: slices.Collect(maps.Values(entries))}
	slices.SortFunc(tree.Entries, func(a, b object.TreeEntry) int { return strings.Compare(sortName(a), sortName(b)) })
	return s.write(tree)
}

func onlyDeletes(e *edits) bool {
	for _, change := range e.files {
		if !change.Delete {
			return false
		}
	}
	for _, below := range e.dirs {
		if !onlyDeletes(below) {
			return false
		}
	}
	return true
}

// sortName is what Git sorts a tree's entries by.
func sortName(entry object.TreeEntry) string {
	if entry.Mode == filemode.Dir {
		return entry.Name + "/"
	}
	return entry.Name
}

func (s *Store) entryOf(name string, old object.TreeEntry, change gitsource.Change) (object.TreeEntry, error) {
	mode := filemode.Regular
	switch change.Mode {
	case gitsource.Absent:
		if old.Mode == filemode.Executable || old.Mode == filemode.Symlink {
			mode = old.Mode
		}
	case gitsource.File:
	case gitsource.Executable:
		mode = filemode.Executable
	case gitsource.Symlink:
		mode = filemode.Symlink
	case gitsource.Directory, gitsource.Submodule:
		return object.TreeEntry{}, fmt.Errorf("path %q: only files and symbolic links can be written", change.Path)
	}
	blob := &plumbing.MemoryObject{}
	blob.SetType(plumbing.BlobObject)
	if _, err := blob.Write(change.Content); err != nil {
		return object.TreeEntry{}, err
	}
	hash, err := s.store(blob)
	return object.TreeEntry{Name: name, Mode: mode, Hash: hash}, err
}

type encoder interface {
	Encode(o plumbing.EncodedObject) error
}

func (s *Store) write(o encoder) (plumbing.Hash, error) {
	encoded := &plumbing.MemoryObject{}
	if err := o.Encode(encoded); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("git object: %w", err)
	}
	return s.store(encoded)
}

// store writes an object unless it is here already.
func (s *Store) store(o plumbing.EncodedObject) (plumbing.Hash, error) {
	if s.disk.has(o.Hash()) {
		return o.Hash(), nil
	}
	hash, err := s.disk.SetEncodedObject(o)
	if err != nil {
		return hash, fmt.Errorf("git store: %w", err)
	}
	return hash, nil
}

// Commit makes a commit, here only, signed if the Store signs. Equal values give equal ids, the ones that Git itself would give.
func (s *Store) Commit(c gitsource.NewCommit) (gitsource.ObjectID, error) {
	tree, err := hashOf(c.Tree)
	if err != nil {
		return "", fmt.Errorf("commit: tree: %w", err)
	}
	commit := object.Commit{Author: signature(c.Author), Committer: signature(c.Committer), Message: c.Message, TreeHash: tree}
	if !strings.HasSuffix(commit.Message, "\n") {
		commit.Message += "\n"
	}
	for _, person := range []gitsource.Person{c.Author, c.Committer} {
		if person.When.Unix() < 0 || clean(person.Name) == "" || strings.ContainsRune(person.Name+person.Email, 0) {
			return "", fmt.Errorf("commit: person %q <%s>: want a name, without zero bytes, and a time since 1970", person.Name, person.Email)
		}
	}
	if bytes.IndexByte([]byte(c.Message), 0) >= 0 {
		return "", errors.New("commit: the message has a zero byte")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.settle(tree); err != nil {
		return "", fmt.Errorf("commit: tree %s: %w", c.Tree, err)
	}
	for _, parent := range c.Parents {
		hash, err := hashOf(parent)
		if err != nil {
			return "", fmt.Errorf("commit: parent: %w", err)
		}
		commit.ParentHashes = append(commit.ParentHashes, hash)
	}
	if err := s.sign(&commit); err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	hash, err := s.write(&commit)
	return idOf(hash), err
}

func signature(p gitsource.Person) object.Signature {
	return object.Signature{Name: clean(p.Name), Email: clean(p.Email), When: p.When}
}

// clean takes out of names and addresses what Git does (ident.c): line breaks and angle
// brackets everywhere, and at both ends also white space and punctuation.
func clean(s string) string {
	s = strings.NewReplacer("\n", "", "<", "", ">", "").Replace(s)
	return strings.TrimFunc(s, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`.,:;"\'`, r) })
}
