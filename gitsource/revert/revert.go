// Package revert computes on trees what takes a change back while later changes stay.
//
// A revert by commits breaks down where the bad change came by a merge, a squash
// or a commit that changed several applications. On trees it is a three-way
// merge: base is what failed, ours is the tip, theirs is the last healthy state.
// What only the failed version changed goes back; what others changed since
// stays; where both touched the same lines a person decides.
package revert

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
)

// Conflict is a path that cannot be merged.
type Conflict struct {
	Path string
	Why  string // for people, follows the path: "both sides changed lines 3 to 5"
}

// Within is true for files below the directory prefix. "." holds all.
func Within(prefix string) func(path string) bool {
	if prefix == "." {
		return func(string) bool { return true }
	}
	return func(path string) bool { return strings.HasPrefix(path, prefix+"/") }
}

// Merge returns the changes to ours, sorted by path, that bring in what differs
// between base and theirs, in files for which within is true. If there are
// conflicts the changes are those of the other files. Work is proportional to
// what differs: equal subtrees are not read.
//
// An error means that a tree could not be read: nobody knows, so nothing may be pushed.
func Merge(base, ours, theirs gitsource.Tree, within func(path string) bool) ([]gitsource.Change, []Conflict, error) {
	m := merger{base: base, ours: ours, theirs: theirs, within: within, changes: map[string]gitsource.Change{}}
	if err := m.directory("."); err != nil {
		return nil, nil, err
	}
	if err := m.keepShape(); err != nil {
		return nil, nil, err
	}
	paths := slices.Sorted(maps.Keys(m.changes))
	changes := make([]gitsource.Change, 0, len(paths))
	for _, path := range paths {
		changes = append(changes, m.changes[path])
	}
	slices.SortFunc(m.conflicts, func(a, b Conflict) int { return strings.Compare(a.Path, b.Path) })
	return changes, m.conflicts, nil
}

type merger struct {
	base, ours, theirs gitsource.Tree
	within             func(string) bool
	changes            map[string]gitsource.Change
	conflicts          []Conflict
}

// sides are what the three trees hold at one path.
type sides struct{ base, ours, theirs gitsource.Entry }

func (m *merger) at(path string) (sides, error) {
	var s sides
	for _, side := range []struct {
		tree gitsource.Tree
		into *gitsource.Entry
	}{{m.base, &s.base}, {m.ours, &s.ours}, {m.theirs, &s.theirs}} {
		entry, err := side.tree.Entry(path)
		if err != nil {
			return sides{}, fmt.Errorf("%s: %w", path, err)
		}
		*side.into = entry
	}
	return s, nil
}

// leaf takes a directory for nothing, so that files and directories are merged apart.
func leaf(e gitsource.Entry) gitsource.Entry {
	if e.Kind == gitsource.Directory {
		return gitsource.Entry{}
	}
	return e
}

func equal(a, b gitsource.Entry) bool { return a.Kind == b.Kind && a.ID == b.ID }

func (m *merger) directory(path string) error {
	s, err := m.at(path)
	if err != nil {
		return err
	}
	if equal(s.ours, s.theirs) || equal(s.base, s.theirs) {
		return nil
	}
	if path != "." && m.within(path) {
		if err := m.file(path, sides{leaf(s.base), leaf(s.ours), leaf(s.theirs)}); err != nil {
			return err
		}
	}
	names, err := m.names(path, s)
	if err != nil {
		return err
	}
	for _, name := range names {
		child := name
		if path != "." {
			child = path + "/" + name
		}
		if err := m.directory(child); err != nil {
			return err
		}
	}
	return nil
}

func (m *merger) names(path string, s sides) ([]string, error) {
	names := map[string]bool{}
	for _, side := range []struct {
		tree  gitsource.Tree
		entry gitsource.Entry
	}{{m.base, s.base}, {m.ours, s.ours}, {m.theirs, s.theirs}} {
		if side.entry.Kind != gitsource.Directory {
			continue
		}
		entries, err := side.tree.ReadDir(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, entry := range entries {
			names[entry.Name()] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// file merges what stands at one path, directories left out.
func (m *merger) file(path string, s sides) error {
	switch {
	case equal(s.base, s.theirs), equal(s.ours, s.theirs):
		return nil
	case !equal(s.base, s.ours):
		return m.both(path, s)
	case s.theirs.Kind == gitsource.Absent:
		m.changes[path] = gitsource.Change{Path: path, Delete: true}
		return nil
	case s.theirs.Kind == gitsource.Submodule:
		m.conflict(path, "is a submodule, which Slipway does not change")
		return nil
	}
	content, err := read(m.theirs, path, s.theirs)
	if err != nil {
		return err
	}
	m.changes[path] = gitsource.Change{Path: path, Content: content, Mode: s.theirs.Kind}
	return nil
}

// both merges a path that the failed version and somebody since have changed.
func (m *merger) both(path string, s sides) error {
	for _, e := range []gitsource.Entry{s.base, s.ours, s.theirs} {
		switch {
		case e.Kind == gitsource.Absent:
			m.conflict(path, "was changed on one side and removed or added on the other")
			return nil
		case e.Kind != gitsource.File && e.Kind != gitsource.Executable:
			m.conflict(path, "was changed on both sides and is not a plain file")
			return nil
		case e.Size > maxMerged:
			m.conflict(path, fmt.Sprintf("was changed on both sides and is larger than %d bytes", maxMerged))
			return nil
		}
	}
	var texts [3][]byte
	for i, side := range []gitsource.Tree{m.base, m.ours, m.theirs} {
		content, err := side.ReadFile(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if bytes.IndexByte(content, 0) >= 0 {
			m.conflict(path, "was changed on both sides and is not text")
			return nil
		}
		texts[i] = content
	}
	merged, why := Text(texts[0], texts[1], texts[2])
	if why != "" {
		m.conflict(path, why)
		return nil
	}
	mode := s.theirs.Kind
	if s.base.Kind == s.theirs.Kind {
		mode = s.ours.Kind
	}
	if mode != s.ours.Kind || !bytes.Equal(merged, texts[1]) {
		m.changes[path] = gitsource.Change{Path: path, Content: merged, Mode: mode}
	}
	return nil
}

// keepShape turns changes into conflicts that would put a file where a directory stays, or the other way round.
func (m *merger) keepShape() error {
	for _, path := range slices.Sorted(maps.Keys(m.changes)) {
		if m.changes[path].Delete {
			continue
		}
		for at := path; ; {
			cut := strings.LastIndexByte(at, '/')
			if cut < 0 {
				break
			}
			at = at[:cut]
			entry, err := m.ours.Entry(at)
			if err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
			if leaf(entry).Kind != gitsource.Absent && !m.changes[at].Delete {
				delete(m.changes, path)
				m.conflict(path, at+" is a file now")
				break
			}
		}
		stays, err := m.staysBelow(path)
		if err != nil {
			return err
		}
		if stays != "" {
			delete(m.changes, path)
			m.conflict(path, "is a directory now, in which "+stays+" stays")
		}
	}
	return nil
}

// staysBelow returns a file of ours below path that nothing removes.
func (m *merger) staysBelow(path string) (string, error) {
	entry, err := m.ours.Entry(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if entry.Kind != gitsource.Directory {
		return "", nil
	}
	entries, err := m.ours.ReadDir(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	for _, e := range entries {
		child := path + "/" + e.Name()
		if !e.IsDir() && !m.changes[child].Delete {
			return child, nil
		}
		if stays, err := m.staysBelow(child); err != nil || stays != "" {
			return stays, err
		}
	}
	return "", nil
}

func (m *merger) conflict(path, why string) {
	m.conflicts = append(m.conflicts, Conflict{Path: path, Why: why})
}

func read(tree gitsource.Tree, path string, entry gitsource.Entry) ([]byte, error) {
	if entry.Kind == gitsource.Symlink {
		target, err := tree.ReadLink(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return []byte(target), nil
	}
	content, err := tree.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return content, nil
}
