package promoter

import (
	"context"
	"fmt"
	"strings"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/promoter/edit"
)

// origin is where trailers say that an image comes from; each field may be empty.
type origin struct {
	Source string // URL@COMMIT
	Run    string
	Trace  string
}

// source takes Source apart; false if it names no commit.
func (o origin) source() (url string, commit gitsource.ObjectID, ok bool) {
	at := strings.LastIndexByte(o.Source, '@')
	if at <= 0 {
		return "", "", false
	}
	id, err := gitsource.ParseObjectID(o.Source[at+1:])
	return o.Source[:at], id, err == nil
}

// step is one change of one image entry on a branch.
type step struct {
	Commit        gitsource.Commit
	Before, After edit.Image // zero where there was no entry
	// Build is what the commit's trailers say of After; its Run is empty where a person or a revert chose it.
	Build origin
}

// past is how a branch came to say what it says, as far back as maxHistory commits.
type past struct {
	stateAt func(ctx context.Context, id gitsource.ObjectID) (state, error)
	all     []gitsource.Commit // newest first, with those that merges brought in
	line    []gitsource.Commit // that the branch itself was at, newest first
	states  map[int]state      // by index into line
	folders map[string][]chapter
	origins map[string]origin // by digest
}

// chapter is what a folder's kustomization said from one commit of the line on.
type chapter struct {
	since  int // index into line; the newest commit is 0
	images []edit.Image
}

// pastOf reads the history of at.
func (p *Promoter) pastOf(ctx context.Context, at gitsource.ObjectID) (*past, error) {
	commits, err := p.repo.Log(ctx, at, maxHistory)
	if err != nil {
		return nil, fmt.Errorf("history of %s: %w", at.Short(), err)
	}
	return &past{stateAt: p.stateAt, all: commits, line: firstParents(commits, at), states: map[int]state{}, folders: map[string][]chapter{}}, nil
}

// complete reports whether h reaches back to the branch's first commit.
func (h *past) complete() bool {
	return len(h.line) > 0 && len(h.line[len(h.line)-1].Parents) == 0
}

// oldest is the end of what h knows.
func (h *past) oldest() gitsource.Commit {
	if len(h.line) == 0 {
		return gitsource.Commit{}
	}
	return h.line[len(h.line)-1]
}

// steps returns the changes of the entry called name below folder, newest first.
func (h *past) steps(ctx context.Context, folder, name string) ([]step, error) {
	chapters, err := h.chapters(ctx, folder)
	if err != nil {
		return nil, err
	}
	var steps []step
	for i, c := range chapters {
		after, before := find(c.images, name), edit.Image{}
		if i+1 < len(chapters) {
			before = find(chapters[i+1].images, name)
		} else if !h.complete() {
			break // what was there before is not known
		}
		if after.Digest == before.Digest && after.NewTag == before.NewTag {
			continue
		}
		commit := h.line[c.since]
		steps = append(steps, step{Commit: commit, Before: before, After: after, Build: h.build(commit, after.Digest)})
	}
	return steps, nil
}

func find(images []edit.Image, name string) edit.Image {
	for _, i := range images {
		if i.Name == name {
			return i
		}
	}
	return edit.Image{}
}

// chapters returns what the kustomization below folder said over time, newest
// first. A commit at which it cannot be read says nothing new.
func (h *past) chapters(ctx context.Context, folder string) ([]chapter, error) {
	if known, found := h.folders[folder]; found {
		return known, nil
	}
	var out []chapter
	var last gitsource.ObjectID // of the file
	for i := range h.line {
		s, err := h.state(ctx, i)
		if err != nil {
			return nil, err
		}
		id, err := s.kustomizationID(folder)
		if err != nil {
			return nil, err
		}
		if len(out) > 0 && id == last {
			out[len(out)-1].since = i
			continue
		}
		var images []edit.Image
		if id != "" {
			if images, err = s.images(folder); err != nil {
				if len(out) > 0 {
					out[len(out)-1].since = i
				}
				continue
			}
		}
		last = id
		out = append(out, chapter{since: i, images: images})
	}
	h.folders[folder] = out
	return out, nil
}

// state returns what the branch said at a commit of the line.
func (h *past) state(ctx context.Context, i int) (state, error) {
	if s, known := h.states[i]; known {
		return s, nil
	}
	s, err := h.stateAt(ctx, h.line[i].ID)
	if err == nil {
		h.states[i] = s
	}
	return s, err
}

// kustomizationID returns the blob that kustomization reads; empty if there is none.
func (s state) kustomizationID(folder string) (gitsource.ObjectID, error) {
	for _, name := range kustomizationNames {
		entry, err := s.tree.Entry(folder + "/" + name)
		if err != nil {
			return "", fmt.Errorf("%s/%s at %s: %w", folder, name, s.id.Short(), err)
		}
		if entry.Kind != gitsource.Absent {
			return entry.ID, nil
		}
	}
	return "", nil
}

// build returns what a commit's trailers say of a digest that it put in. Where it
// is a merge, those of the commits that it brought in count too. A revert builds nothing.
func (h *past) build(commit gitsource.Commit, digest string) origin {
	if digest == "" {
		return origin{}
	}
	for _, c := range append([]gitsource.Commit{commit}, h.merged(commit)...) {
		block := trailer.Parse(c.Message)
		if len(block.Reverts) > 0 {
			return origin{}
		}
		for _, line := range block.Changes {
			if line.Run != "" && strings.HasSuffix(line.Image, "@"+digest) {
				return origin{Source: line.Source, Run: line.Run, Trace: line.Trace}
			}
		}
	}
	return origin{}
}

// merged returns the commits that a merge brought in, newest first.
func (h *past) merged(merge gitsource.Commit) []gitsource.Commit {
	if len(merge.Parents) < 2 {
		return nil
	}
	known := map[gitsource.ObjectID]bool{merge.ID: true}
	for _, c := range h.line {
		known[c.ID] = true
	}
	wanted := map[gitsource.ObjectID]bool{}
	for _, id := range merge.Parents[1:] {
		wanted[id] = !known[id]
	}
	var out []gitsource.Commit
	for _, c := range h.all {
		if !wanted[c.ID] || len(out) == maxRequest {
			continue
		}
		out = append(out, c)
		for _, id := range c.Parents {
			wanted[id] = wanted[id] || !known[id]
		}
	}
	return out
}

// origin returns what the newest trailer that knows a digest says of it, in whatever
// Environment: the digest is the same content everywhere.
func (h *past) origin(digest string) origin {
	if h.origins == nil {
		h.origins = map[string]origin{}
		for _, c := range h.all {
			for _, line := range trailer.Parse(c.Message).Changes {
				_, of, pinned := strings.Cut(line.Image, "@")
				if _, known := h.origins[of]; pinned && !known && (line.Source != "" || line.Run != "") {
					h.origins[of] = origin{Source: line.Source, Run: line.Run, Trace: line.Trace}
				}
			}
		}
	}
	return h.origins[digest]
}
