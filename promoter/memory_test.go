package promoter

import (
	"context"
	"crypto/sha1"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing/fstest"

	"github.com/slipway-cd/slipway/gitsource"
)

// memory is a Repo without Git, for properties that are tried on many thousand
// repositories. What Git itself has a say in is tested against Git.
type memory struct {
	commits map[gitsource.ObjectID]gitsource.Commit
	trees   map[gitsource.ObjectID]memoryTree
	refs    map[string]gitsource.ObjectID
	// lose makes that many pushes find that somebody was faster.
	lose int
}

func newMemory() *memory {
	return &memory{commits: map[gitsource.ObjectID]gitsource.Commit{}, trees: map[gitsource.ObjectID]memoryTree{}, refs: map[string]gitsource.ObjectID{}}
}

func named(format string, args ...any) gitsource.ObjectID {
	return gitsource.ObjectID(fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, format, args...))))
}

func (m *memory) Fetch(_ context.Context, ref string) (gitsource.Revision, error) {
	id, found := m.refs[ref]
	if !found {
		return gitsource.Revision{}, gitsource.ErrNotFound
	}
	return gitsource.Revision{Ref: ref, ID: id}, nil
}

func (m *memory) SnapshotOf(_ context.Context, id gitsource.ObjectID) (gitsource.Snapshot, error) {
	commit, found := m.commits[id]
	if !found {
		return gitsource.Snapshot{}, gitsource.ErrNotFound
	}
	return gitsource.Snapshot{Revision: gitsource.Revision{ID: id}, Tree: m.trees[commit.Tree]}, nil
}

func (m *memory) CommitOf(_ context.Context, id gitsource.ObjectID) (gitsource.Commit, error) {
	return m.commits[id], nil
}

// Log is right where each commit was made after its parents.
func (m *memory) Log(_ context.Context, from gitsource.ObjectID, limit int) ([]gitsource.Commit, error) {
	var out []gitsource.Commit
	for id := range m.reached(from) {
		out = append(out, m.commits[id])
	}
	slices.SortFunc(out, func(a, b gitsource.Commit) int {
		if m.reached(a.ID)[b.ID] {
			return -1
		}
		if m.reached(b.ID)[a.ID] {
			return 1
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return out[:min(len(out), limit)], nil
}

func (m *memory) reached(from gitsource.ObjectID) map[gitsource.ObjectID]bool {
	out := map[gitsource.ObjectID]bool{}
	for todo := []gitsource.ObjectID{from}; len(todo) > 0; todo = todo[1:] {
		if !out[todo[0]] {
			out[todo[0]] = true
			todo = append(todo, m.commits[todo[0]].Parents...)
		}
	}
	return out
}

func (m *memory) MergeBase(ctx context.Context, a, b gitsource.ObjectID) (gitsource.ObjectID, error) {
	mine := m.reached(a)
	theirs, _ := m.Log(ctx, b, len(m.commits))
	for _, c := range theirs {
		if mine[c.ID] {
			return c.ID, nil
		}
	}
	return "", gitsource.ErrNotFound
}

func (m *memory) WriteTree(base gitsource.ObjectID, changes []gitsource.Change) (gitsource.ObjectID, error) {
	files := fstest.MapFS{}
	if base != "" {
		maps.Copy(files, m.trees[m.commits[base].Tree].MapFS)
	}
	for _, c := range changes {
		if c.Delete {
			delete(files, c.Path)
			continue
		}
		files[c.Path] = &fstest.MapFile{Data: c.Content, Mode: 0o644}
	}
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&all, "%s\x00%s\x00", name, files[name].Data)
	}
	id := named("tree %s", all.String())
	m.trees[id] = memoryTree{files}
	return id, nil
}

func (m *memory) Commit(c gitsource.NewCommit) (gitsource.ObjectID, error) {
	id := named("commit %v", c)
	m.commits[id] = gitsource.Commit{ID: id, Tree: c.Tree, Parents: c.Parents, Author: c.Author, Committer: c.Committer, Message: c.Message}
	return id, nil
}

func (m *memory) Push(_ context.Context, ref string, old, new gitsource.ObjectID) error {
	if m.lose > 0 {
		m.lose--
		return gitsource.ErrMoved
	}
	if m.refs[ref] != old {
		return gitsource.ErrMoved
	}
	m.refs[ref] = new
	if new == "" {
		delete(m.refs, ref)
	}
	return nil
}

type memoryTree struct{ fstest.MapFS }

func (t memoryTree) Entry(name string) (gitsource.Entry, error) {
	if f, found := t.MapFS[name]; found {
		return gitsource.Entry{Kind: gitsource.File, ID: named("blob %s", f.Data), Size: int64(len(f.Data))}, nil
	}
	var below strings.Builder
	for _, file := range slices.Sorted(maps.Keys(t.MapFS)) {
		if name == "." || strings.HasPrefix(file, name+"/") {
			fmt.Fprintf(&below, "%s\x00%s\x00", file, t.MapFS[file].Data)
		}
	}
	if below.Len() > 0 {
		return gitsource.Entry{Kind: gitsource.Directory, ID: named("dir %s", below.String())}, nil
	}
	return gitsource.Entry{}, nil
}

func (t memoryTree) ReadLink(name string) (string, error) {
	return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
}
