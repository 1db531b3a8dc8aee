package gogit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/slipway-cd/slipway/gitsource"
)

// listings lets those who wait for each other share one listing of refs: a listing
// that began after a caller came is as good as one of its own.
type listings struct {
	began   atomic.Uint64 // how many listings have begun
	waiting atomic.Int32  // callers of Fetch
	last    *listing      // of the number began; guarded by Store.network
}

type listing struct {
	number uint64
	refs   *packp.AdvRefs
	err    error
}

// Fetch finds out where ref, a full name, is on the host and brings its objects, if it moved.
// The first fetch brings one commit without its history, later ones what is new since.
// It fails with gitsource.ErrNotFound if there is no such ref, and with
// gitsource.ErrUnreachable if nobody knows.
func (s *Store) Fetch(ctx context.Context, ref string) (gitsource.Revision, error) {
	revision, err := s.fetch(ctx, func(*packp.AdvRefs) (string, error) { return ref, nil })
	if err != nil {
		return gitsource.Revision{}, fmt.Errorf("fetch of %s: %w", ref, s.roomy(err))
	}
	return revision, nil
}

// FetchChosen is Fetch of the ref that choose picks among those of the host, by the same listing.
func (s *Store) FetchChosen(ctx context.Context, choose func(refs map[string]gitsource.ObjectID) (string, error)) (gitsource.Revision, error) {
	revision, err := s.fetch(ctx, func(advertised *packp.AdvRefs) (string, error) { return choose(refsOf(advertised)) })
	return revision, s.roomy(err)
}

func (s *Store) fetch(ctx context.Context, choose func(*packp.AdvRefs) (string, error)) (gitsource.Revision, error) {
	came := s.listings.began.Load()
	s.listings.waiting.Add(1)
	err := s.network.acquire(ctx)
	last := s.listings.waiting.Add(-1) == 0
	if err != nil {
		return gitsource.Revision{}, err
	}
	defer s.network.release()
	advertised, session, err := s.listAfter(ctx, came, last)
	if err != nil {
		return gitsource.Revision{}, err
	}
	if session != nil {
		defer func() { _ = session.Close() }()
	}
	ref, err := choose(advertised)
	if err != nil {
		return gitsource.Revision{}, fmt.Errorf("%s: %w", s.url, err)
	}
	hash, tag, found := hashAt(advertised, ref)
	if !found {
		return gitsource.Revision{}, fmt.Errorf("%s of %s: %w", ref, s.url, gitsource.ErrNotFound)
	}
	revision := gitsource.Revision{URL: s.url, Ref: ref, ID: idOf(hash), Tag: idOf(tag)}
	s.mu.Lock()
	previous, disk := s.lastSeen(ref), s.disk
	here := disk.has(hash) && (tag.IsZero() || disk.has(tag))
	anew := s.mustMend() || disk.packs()-s.packed >= s.maxPacks
	s.mu.Unlock()
	wanted := hash
	if !tag.IsZero() {
		wanted = tag // it brings its commit; hosts give out what a ref names itself, not always what is behind it
	}
	if !here && !anew {
		w := want{ids: []plumbing.Hash{wanted}}
		if previous.IsZero() {
			w.depth = 1
		}
		if session != nil {
			err = s.download(ctx, session, disk.storage, advertised.Capabilities, w)
		} else {
			err = s.fetchAlone(ctx, disk.storage, w)
		}
		if err != nil && !s.broken() {
			return gitsource.Revision{}, err
		}
		anew = err != nil || !s.descends(hash, previous)
	}
	if !anew {
		if err, anew = s.look(hash); err != nil && !anew { // tags may name anything
			return gitsource.Revision{}, fmt.Errorf("%s of %s: %s: %w", ref, s.url, hash, err)
		}
	}
	if anew {
		return revision, s.remake(ctx, ref, hash, wanted)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if previous == hash {
		return revision, nil
	}
	return revision, s.see(ref, hash, advertised.References)
}

// listAfter lists the refs of the host, or takes a listing that began after the number
// came. The session is nil then. The network must be held; nobody waits for it if last.
func (s *Store) listAfter(ctx context.Context, came uint64, last bool) (*packp.AdvRefs, transport.UploadPackSession, error) {
	shared := s.listings.last
	if last {
		s.listings.last = nil // hosts may have very many refs
	}
	if shared != nil && shared.number > came {
		return shared.refs, nil, shared.err
	}
	number := s.listings.began.Add(1)
	advertised, session, err := s.remote.list(ctx)
	if ctx.Err() == nil && s.listings.waiting.Load() > 0 {
		s.listings.last = &listing{number: number, refs: advertised, err: err}
	}
	return advertised, session, err
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
		commit, err := s.commit(at)
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

// want is what a download asks for.
type want struct {
	ids   []plumbing.Hash
	depth int // commits from each id on; 0 for all that is not here
}

// everything is a depth that hosts take for the whole history.
const everything = math.MaxInt32

// fetchAlone downloads in a session of its own. The network must be held. Commits that
// no branch names are asked for by their id; where the host does not allow that, the
// history of its branches is fetched, and they are looked for in it.
func (s *Store) fetchAlone(ctx context.Context, disk storage, w want) error {
	advertised, session, err := s.remote.list(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }()
	if len(advertised.References) == 0 {
		return fmt.Errorf("commit %s of %s: %w", w.ids[0], s.url, gitsource.ErrNotFound)
	}
	err = s.download(ctx, session, disk, advertised.Capabilities, w)
	if !errors.Is(err, gitsource.ErrNotFound) || advertised.Capabilities.Supports(capability.AllowReachableSHA1InWant) {
		return err
	}
	var branches []plumbing.Hash
	for name, hash := range advertised.References {
		if strings.HasPrefix(name, "refs/heads/") && !slices.Contains(branches, hash) {
			branches = append(branches, hash)
		}
	}
	if len(branches) == 0 {
		return err
	}
	again, second, listErr := s.remote.list(ctx) // a session is good for one download
	if listErr != nil {
		return listErr
	}
	defer func() { _ = second.Close() }()
	if allErr := s.download(ctx, second, disk, again.Capabilities, want{ids: branches, depth: everything}); allErr != nil {
		return allErr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range w.ids {
		if !disk.has(id) {
			return err
		}
	}
	return nil
}

// download writes one pack beside what is there, without disturbing readers.
func (s *Store) download(ctx context.Context, session transport.UploadPackSession, disk storage, offered *capability.List, w want) error {
	s.mu.Lock()
	request, err := s.request(disk, offered, w)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	answer, err := session.UploadPack(ctx, request)
	if errors.Is(err, transport.ErrEmptyUploadPackRequest) {
		return nil // it is all here
	}
	if err != nil {
		return s.refusal(ctx, w, err)
	}
	defer func() { _ = answer.Close() }()
	// The boundary is written before what it bounds, and taken away after what lies beyond it:
	// should we stop in between, the host sends too much, never too little.
	s.mu.Lock()
	err = disk.updateShallow(answer.Shallows, nil)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	// A storage of its own writes the pack; readers see it when they look at the folder again.
	err = packfile.UpdateObjectStorage(open(disk.folder), demux(request.Capabilities, answer))
	s.mu.Lock()
	defer s.mu.Unlock()
	disk.Reindex()
	if err != nil && !errors.Is(err, packfile.ErrEmptyPackfile) {
		if broken := sound(open(disk.folder)); broken != nil { // packs build upon what is here
			err = s.missing(fmt.Errorf("%w: %w", errIncomplete, broken))
		}
		return errors.Join(s.refusal(ctx, w, err), removeLeftovers(disk.folder))
	}
	if err := disk.updateShallow(nil, answer.Unshallows); err != nil {
		return err
	}
	for _, id := range w.ids {
		if !disk.has(id) {
			return fmt.Errorf("commit %s of %s: %w: the host did not send it", id, s.url, gitsource.ErrNotFound)
		}
	}
	return nil
}

// refusal says what an error in a download means.
func (s *Store) refusal(ctx context.Context, w want, err error) error {
	var onDisk *fs.PathError
	switch {
	case refusedCommit(err):
		return fmt.Errorf("commit %s of %s: %w: %w", w.ids[0], s.url, gitsource.ErrNotFound, err)
	case (errors.As(err, &onDisk) || errors.Is(err, errIncomplete)) && ctx.Err() == nil:
		return fmt.Errorf("git store: %w", err)
	}
	return s.remote.explain(ctx, err)
}

// refusedCommit recognises the host's answer to a commit that it does not have or
// show (upload-pack.c); go-git hands it on as text only.
func refusedCommit(err error) bool {
	return strings.Contains(err.Error(), "not our ref") || strings.Contains(err.Error(), "not valid want")
}

// request asks for w. The shallow boundary is always told: without it the host
// would leave out objects that only our missing history holds, such as those that
// a revert brings back.
func (s *Store) request(disk storage, offered *capability.List, w want) (*packp.UploadPackRequest, error) {
	request := packp.NewUploadPackRequestFromCapabilities(offered)
	request.Wants = w.ids
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
		if !slices.Contains(w.ids, hash) && !slices.Contains(request.Haves, hash) && disk.has(hash) {
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

// bring makes sure that a commit can be read. Of a store that is broken it makes a
// new one, but keeps to what can be read as long as the host cannot be reached.
func (s *Store) bring(ctx context.Context, id gitsource.ObjectID) (plumbing.Hash, error) {
	hash, err := hashOf(id)
	if err != nil {
		return hash, err
	}
	if err, mend := s.look(hash); err == nil && !mend {
		return hash, nil
	}
	if err := s.network.acquire(ctx); err != nil {
		return hash, err
	}
	defer s.network.release()
	here, mend := s.look(hash) // again: somebody may have brought it while we waited
	if here == nil && !mend {
		return hash, nil
	}
	if mend {
		err := s.remake(ctx, "", hash, hash)
		if here == nil {
			return hash, nil
		}
		return hash, s.roomy(err)
	}
	if !errors.Is(here, gitsource.ErrNotFound) {
		return hash, here
	}
	s.mu.Lock()
	disk := s.disk.storage
	s.mu.Unlock()
	if err := s.fetchAlone(ctx, disk, want{ids: []plumbing.Hash{hash}, depth: 1}); err != nil {
		return hash, s.roomy(err)
	}
	here, _ = s.look(hash)
	return hash, here
}

// broken reports whether the store is to be made anew because something is missing.
func (s *Store) broken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mustMend()
}

// look reports why a commit cannot be read, and whether the store must be made anew.
func (s *Store) look(hash plumbing.Hash) (err error, mend bool) { //nolint:revive // the error is the finding
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.readable(hash)
	return err, s.mustMend()
}
