package gogit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/slipway-cd/slipway/gitsource"
)

// Fetch finds out where ref is on the host and brings its objects, if it moved.
// The first fetch brings one commit without its history, later ones what is new since.
func (s *Store) Fetch(ctx context.Context, ref string) (gitsource.Revision, error) {
	s.network.Lock()
	defer s.network.Unlock()
	advertised, session, err := s.remote.list(ctx)
	if err != nil {
		return gitsource.Revision{}, fmt.Errorf("fetch of %s: %w", ref, err)
	}
	defer func() { _ = session.Close() }()
	hash, found := hashAt(advertised, ref)
	if !found {
		return gitsource.Revision{}, fmt.Errorf("%s of %s: %w", ref, s.url, gitsource.ErrNotFound)
	}
	revision := gitsource.Revision{URL: s.url, Ref: ref, ID: idOf(hash)}
	s.mu.Lock()
	previous, disk := s.lastSeen(ref), s.disk
	here := !s.suspect && s.has(hash)
	anew := s.suspect || s.packs() >= s.maxPacks
	s.mu.Unlock()
	if !here && !anew {
		depth := 0
		if previous.IsZero() {
			depth = 1
		}
		if err := s.download(ctx, session, disk, advertised.Capabilities, want{id: hash, depth: depth}); err != nil {
			return gitsource.Revision{}, fmt.Errorf("fetch of %s: %w", ref, err)
		}
		anew = !s.descends(hash, previous)
	}
	if !anew {
		s.mu.Lock()
		defer s.mu.Unlock()
		if previous == hash {
			return revision, nil
		}
		return revision, s.disk.SetReference(plumbing.NewHashReference(tipName(ref), hash))
	}
	if err := s.remake(ctx, ref, hash); err != nil {
		return gitsource.Revision{}, fmt.Errorf("fetch of %s: %w", ref, err)
	}
	return revision, nil
}

// lastSeen is where ref was; zero if it was never fetched. The lock must be held.
func (s *Store) lastSeen(ref string) plumbing.Hash {
	seen, err := s.disk.Reference(tipName(ref))
	if err != nil {
		return plumbing.ZeroHash
	}
	return seen.Hash()
}

// has reports whether a commit is here. All ways that bring a commit bring its whole tree. The lock must be held.
func (s *Store) has(hash plumbing.Hash) bool { return s.disk.HasEncodedObject(hash) == nil }

func (s *Store) packs() int {
	entries, err := os.ReadDir(filepath.Join(s.folder(s.current), "objects", "pack"))
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

// descends reports whether the old tip is among what the new one was made from, as far as the history is here.
func (s *Store) descends(hash, old plumbing.Hash) bool {
	if old.IsZero() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[plumbing.Hash]bool{}
	for todo := []plumbing.Hash{hash}; len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		if at == old {
			return true
		}
		commit, err := object.GetCommit(s.disk, at)
		if err != nil {
			continue // beyond the shallow boundary
		}
		for _, parent := range commit.ParentHashes {
			if !seen[parent] {
				seen[parent] = true
				todo = append(todo, parent)
			}
		}
	}
	return false
}

// remake fetches a ref and all that is pinned afresh beside the store, and swaps. Other refs
// are fetched again when they are asked for.
func (s *Store) remake(ctx context.Context, ref string, tip plumbing.Hash) error {
	s.mu.Lock()
	pins, err := localRefs(s.disk)
	old, next := s.current, s.current+1
	s.mu.Unlock()
	if err != nil {
		pins = nil // the old store is broken; pins are fetched by their commit when they are needed
	}
	maps.DeleteFunc(pins, func(name plumbing.ReferenceName, _ plumbing.Hash) bool {
		return !strings.HasPrefix(string(name), healthyPrefix)
	})
	if err := os.RemoveAll(s.folder(next)); err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	disk, err := create(s.folder(next))
	if err != nil {
		return err
	}
	if err := s.fetchAlone(ctx, disk, want{id: tip, depth: 1}); err != nil {
		return err
	}
	if err := disk.SetReference(plumbing.NewHashReference(tipName(ref), tip)); err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	for name, hash := range pins {
		if disk.HasEncodedObject(hash) != nil {
			// Unknown keeps the old store; that the host has dropped the commit must not stop us from following the branch.
			if err := s.fetchAlone(ctx, disk, want{id: hash, depth: 1}); err != nil && !errors.Is(err, gitsource.ErrNotFound) {
				return err
			} else if err != nil {
				continue
			}
		}
		if err := disk.SetReference(plumbing.NewHashReference(name, hash)); err != nil {
			return fmt.Errorf("git store: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use(open(s.folder(next)), next)
	return os.RemoveAll(s.folder(old))
}

// want is what a download asks for.
type want struct {
	id    plumbing.Hash
	depth int // commits from id on; 0 for all that is not here
}

// fetchAlone downloads in a session of its own.
func (s *Store) fetchAlone(ctx context.Context, disk *filesystem.Storage, w want) error {
	advertised, session, err := s.remote.list(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }()
	if len(advertised.References) == 0 {
		return fmt.Errorf("commit %s of %s: %w", w.id, s.url, gitsource.ErrNotFound)
	}
	return s.download(ctx, session, disk, advertised.Capabilities, w)
}

// download writes one pack beside what is there, without disturbing readers.
func (s *Store) download(ctx context.Context, session transport.UploadPackSession, disk *filesystem.Storage, offered *capability.List, w want) error {
	s.mu.Lock()
	request, err := s.request(disk, offered, w)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	answer, err := session.UploadPack(ctx, request)
	if err != nil {
		if refusedCommit(err) {
			return fmt.Errorf("commit %s of %s: %w: %w", w.id, s.url, gitsource.ErrNotFound, err)
		}
		return s.remote.explain(ctx, err)
	}
	defer func() { _ = answer.Close() }()
	// A storage of its own writes the pack; readers see it when they look at the folder again.
	writer := open(disk.Filesystem().Root())
	if err := packfile.UpdateObjectStorage(writer, demux(request.Capabilities, answer)); err != nil && !errors.Is(err, packfile.ErrEmptyPackfile) {
		if refusedCommit(err) {
			return fmt.Errorf("commit %s of %s: %w: %w", w.id, s.url, gitsource.ErrNotFound, err)
		}
		return s.remote.explain(ctx, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	disk.Reindex()
	if err := updateShallow(disk, answer.Shallows, answer.Unshallows); err != nil {
		return err
	}
	if disk.HasEncodedObject(w.id) != nil {
		return fmt.Errorf("commit %s of %s: %w: the host did not send it", w.id, s.url, gitsource.ErrNotFound)
	}
	return nil
}

// request asks for w. The shallow boundary is always told: without it the host
// would leave out objects that only our missing history holds, such as those that
// a revert brings back.
func (s *Store) request(disk *filesystem.Storage, offered *capability.List, w want) (*packp.UploadPackRequest, error) {
	request := packp.NewUploadPackRequestFromCapabilities(offered)
	request.Wants = []plumbing.Hash{w.id}
	if offered.Supports(capability.NoProgress) {
		_ = request.Capabilities.Set(capability.NoProgress)
	}
	shallow, err := disk.Shallow()
	if err != nil {
		return nil, fmt.Errorf("git store: %w", err)
	}
	refs, err := localRefs(disk)
	if err != nil {
		return nil, fmt.Errorf("git store: %w", err)
	}
	request.Shallows = shallow
	for _, hash := range refs {
		if hash != w.id && disk.HasEncodedObject(hash) == nil && !slices.Contains(request.Haves, hash) {
			request.Haves = append(request.Haves, hash)
		}
	}
	if w.depth > 0 {
		request.Depth = packp.DepthCommits(w.depth)
	}
	if w.depth > 0 || len(shallow) > 0 {
		if err := request.Capabilities.Set(capability.Shallow); err != nil {
			return nil, fmt.Errorf("git store: %w", err)
		}
	}
	return request, nil
}

func demux(capabilities *capability.List, r io.Reader) io.Reader {
	switch {
	case capabilities.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case capabilities.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	}
	return r
}

func updateShallow(disk *filesystem.Storage, added, removed []plumbing.Hash) error {
	if len(added)+len(removed) == 0 {
		return nil
	}
	shallow, err := disk.Shallow()
	if err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	shallow = slices.DeleteFunc(shallow, func(h plumbing.Hash) bool { return slices.Contains(removed, h) })
	for _, hash := range added {
		if !slices.Contains(shallow, hash) {
			shallow = append(shallow, hash)
		}
	}
	if err := disk.SetShallow(shallow); err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	return nil
}

// refusedCommit recognises the host's answer to a commit that it does not have or
// show (upload-pack.c); go-git hands it on as text only.
func refusedCommit(err error) bool {
	return strings.Contains(err.Error(), "not our ref") || strings.Contains(err.Error(), "not valid want")
}

// bring makes sure that a commit is here, with its tree.
func (s *Store) bring(ctx context.Context, id gitsource.ObjectID) (plumbing.Hash, error) {
	hash, err := hashOf(id)
	if err != nil {
		return hash, err
	}
	s.mu.Lock()
	here := s.has(hash)
	s.mu.Unlock()
	if here {
		return hash, nil
	}
	s.network.Lock()
	defer s.network.Unlock()
	s.mu.Lock()
	here, disk := s.has(hash), s.disk
	s.mu.Unlock()
	if here { // while we waited
		return hash, nil
	}
	return hash, s.fetchAlone(ctx, disk, want{id: hash, depth: 1})
}
