package render

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
)

// recorder answers a child from a Tree and keeps what it answered. It follows
// links itself, one step at a time, so that each step is recorded and none leaves the tree.
type recorder struct {
	tree    gitsource.Tree
	entries map[string]gitsource.Entry
	reads   map[string]gitsource.Read
	bytes   int64
	count   int
}

func newRecorder(tree gitsource.Tree) *recorder {
	return &recorder{tree: tree, entries: map[string]gitsource.Entry{}, reads: map[string]gitsource.Read{}}
}

// answer serves one request. The error is the tree's: nobody knows what is in
// the repository, and the render must not go on. What the user got wrong is in
// the answer's Failure.
func (r *recorder) answer(request message) (message, []byte, error) {
	answer := message{Op: opAnswer}
	refuse := func(at string, cause error) (message, []byte, error) {
		answer.Failure = failureOf(&Error{Path: at, Cause: cause}, at)
		return answer, nil, nil
	}
	r.count++
	if r.count > maxReads {
		return refuse(request.Path, limitf("more than %d files were asked for: the limit of one render", maxReads))
	}
	resolved, found, refusal, err := r.resolve(request.Path)
	if err != nil {
		return message{}, nil, err
	}
	if refusal != nil {
		return refuse(request.Path, refusal)
	}
	answer.Path, answer.Kind = resolved, found.Kind.Plain()
	switch {
	case request.Op == opRead && answer.Kind == gitsource.File:
		if found.Size > maxFileBytes {
			return refuse(request.Path, limitf("%d bytes: more than the limit of %d for one file", found.Size, maxFileBytes))
		}
		if r.bytes += found.Size; r.bytes > maxReadBytes {
			return refuse(request.Path, limitf("more than %d bytes were read: the limit of one render", maxReadBytes))
		}
		r.note(resolved, found.Kind, found.ID)
		content, err := r.tree.ReadFile(resolved)
		if err != nil {
			return message{}, nil, fmt.Errorf("read %s: %w", resolved, err)
		}
		if len(content) > maxFileBytes {
			return refuse(request.Path, limitf("%d bytes: more than the limit of %d for one file", len(content), maxFileBytes))
		}
		return answer, content, nil
	case request.Op == opList && answer.Kind == gitsource.Directory:
		r.note(resolved, found.Kind, found.ID)
		listed, err := r.tree.ReadDir(resolved)
		if err != nil {
			return message{}, nil, fmt.Errorf("list %s: %w", resolved, err)
		}
		for _, item := range listed {
			answer.Names = append(answer.Names, item.Name())
		}
		slices.Sort(answer.Names)
	}
	return answer, nil, nil
}

// resolve follows links from the root to name. A missing path is an Absent Entry.
func (r *recorder) resolve(name string) (resolved string, found gitsource.Entry, refusal, err error) {
	at, rest, links := ".", split(name), 0
	if found, err = r.entry("."); err != nil || len(rest) == 0 {
		return at, found, nil, err
	}
	for len(rest) > 0 {
		step := rest[0]
		rest = rest[1:]
		if step == ".." {
			if at == "." {
				return "", found, fmt.Errorf("leaves the repository"), nil
			}
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, step)
		if found, err = r.entry(next); err != nil {
			return "", found, nil, err
		}
		switch found.Kind {
		case gitsource.Directory:
			at = next
		case gitsource.Symlink:
			target, err := r.tree.ReadLink(next)
			if err != nil {
				return "", found, nil, fmt.Errorf("read link %s: %w", next, err)
			}
			r.note(next, found.Kind, found.ID)
			if links++; links > maxLinks {
				return "", found, limitf("more than %d symbolic links lead to it: the limit", maxLinks), nil
			}
			if path.IsAbs(target) {
				return "", found, fmt.Errorf("symbolic link %s leaves the repository", next), nil
			}
			rest = append(split(target), rest...)
			if escapes(at, rest) {
				return "", found, fmt.Errorf("symbolic link %s leaves the repository", next), nil
			}
		case gitsource.Submodule:
			return "", found, fmt.Errorf("is in the submodule %s; submodules are not read", next), nil
		default:
			if len(rest) > 0 { // nothing is below a file, nor below what is not there
				return next, gitsource.Entry{}, nil, nil
			}
			return next, found, nil, nil
		}
	}
	found, err = r.entry(at)
	return at, found, nil, err
}

// escapes reports whether the leading ".." of steps lead above the root from at.
func escapes(at string, steps []string) bool {
	up := 0
	for _, step := range steps {
		if step != ".." {
			break
		}
		up++
	}
	return up > len(split(at))
}

func split(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(step string) bool { return step == "" || step == "." })
}

// entry looks up one path and records its kind.
func (r *recorder) entry(name string) (gitsource.Entry, error) {
	if found, ok := r.entries[name]; ok {
		return found, nil
	}
	found, err := r.tree.Entry(name)
	if err != nil {
		return gitsource.Entry{}, fmt.Errorf("look up %s: %w", name, err)
	}
	r.entries[name] = found
	r.note(name, found.Kind, "")
	return found, nil
}

func (r *recorder) note(name string, kind gitsource.EntryKind, id gitsource.ObjectID) {
	known := r.reads[name]
	if id == "" {
		id = known.ID
	}
	r.reads[name] = gitsource.Read{Path: name, Kind: kind.Plain(), ID: id}
}

// recorded returns the reads by path. What is below a listed folder is left
// out: the folder's tree id covers it.
func (r *recorder) recorded() gitsource.Reads {
	reads := make(gitsource.Reads, 0, len(r.reads))
	for _, one := range r.reads {
		if !r.covered(one.Path) {
			reads = append(reads, one)
		}
	}
	slices.SortFunc(reads, func(a, b gitsource.Read) int { return strings.Compare(a.Path, b.Path) })
	return reads
}

func (r *recorder) covered(name string) bool {
	for name != "." {
		name = path.Dir(name)
		if above := r.reads[name]; above.Kind == gitsource.Directory && above.ID != "" {
			return true
		}
	}
	return false
}
