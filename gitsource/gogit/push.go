package gogit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/slipway-cd/slipway/gitsource"
)

// Push moves ref on the host from one commit to another, or fails with
// gitsource.ErrMoved when it is not there any more. An empty from means that ref
// must not exist, an empty to deletes it. After an error that wraps
// gitsource.ErrUnreachable nobody knows whether it was moved: Fetch tells.
func (s *Store) Push(ctx context.Context, ref string, from, to gitsource.ObjectID) error {
	oldHash, newHash := plumbing.ZeroHash, plumbing.ZeroHash
	var err error
	if from != "" {
		if oldHash, err = hashOf(from); err != nil {
			return fmt.Errorf("push of %s: %w", ref, err)
		}
	}
	if to != "" {
		if newHash, err = hashOf(to); err != nil {
			return fmt.Errorf("push of %s: %w", ref, err)
		}
	}
	if err := s.push(ctx, packp.Command{Name: plumbing.ReferenceName(ref), Old: oldHash, New: newHash}); err != nil {
		return fmt.Errorf("push of %s: %w", ref, err)
	}
	return nil
}

func (s *Store) push(ctx context.Context, command packp.Command) error {
	endpoint := *s.remote.endpoint
	method, err := s.remote.auth.method(ctx)
	if err != nil {
		return s.remote.explain(ctx, err)
	}
	session, err := s.remote.transport.NewReceivePackSession(&endpoint, method)
	if err != nil {
		return s.remote.explain(ctx, err)
	}
	defer func() { _ = session.Close() }()
	advertised, err := session.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		advertised, err = packp.NewAdvRefs(), nil
	}
	if err != nil {
		return s.remote.explain(ctx, err)
	}
	if now := advertised.References[command.Name.String()]; now != command.Old {
		return fmt.Errorf("it is at %q, not at %q: %w", idOf(now), idOf(command.Old), gitsource.ErrMoved)
	}
	if command.Old == command.New {
		return nil
	}
	request := packp.NewReferenceUpdateRequestFromCapabilities(advertised.Capabilities)
	_ = request.Capabilities.Set(capability.ReportStatus)
	var said remarks
	if advertised.Capabilities.Supports(capability.Sideband64k) {
		_ = request.Capabilities.Set(capability.Sideband64k)
		request.Progress = &said
	}
	request.Commands = []*packp.Command{&command}
	if command.New.IsZero() {
		if !advertised.Capabilities.Supports(capability.DeleteRefs) {
			return errors.New("the host does not let refs be deleted")
		}
		_ = request.Capabilities.Set(capability.DeleteRefs)
	} else {
		pack, err := s.pack(command.New, advertised)
		if err != nil {
			return err
		}
		defer pack.Close()
		request.Packfile = pack
	}
	report, err := session.ReceivePack(ctx, request)
	if report == nil && err == nil {
		err = errors.New("the answer is empty")
	}
	if report == nil {
		return s.remote.explain(ctx, err)
	}
	return s.judge(ctx, command, report, said.String())
}

// remarks keeps what the host says about a push to people.
type remarks struct{ text []byte }

func (r *remarks) Write(p []byte) (int, error) {
	const most = 500
	r.text = append(r.text, p[:min(len(p), max(0, most-len(r.text)))]...)
	return len(p), nil
}

// String returns the remarks in one line.
func (r *remarks) String() string {
	printable := strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return ' '
	}, strings.ToValidUTF8(string(r.text), ""))
	return strings.Join(strings.Fields(printable), " ")
}

// judge reads the host's report. Hosts word a lost race differently, so the ref itself is asked.
func (s *Store) judge(ctx context.Context, command packp.Command, report *packp.ReportStatus, said string) error {
	refused := report.Error()
	if refused == nil {
		return nil
	}
	if said != "" {
		refused = fmt.Errorf("%w (the host says: %s)", refused, said)
	}
	refs, err := s.Refs(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w; and then: %w", gitsource.ErrUnreachable, refused, err)
	}
	switch now := refs[command.Name.String()]; now {
	case idOf(command.New):
		return nil
	case idOf(command.Old):
		if strings.Contains(report.Error().Error(), "lock") {
			return fmt.Errorf("somebody else is pushing: %w: %w", gitsource.ErrMoved, refused)
		}
		return fmt.Errorf("%w: %w (is the branch protected, or the user not allowed to push?)", gitsource.ErrProtected, refused)
	default:
		return fmt.Errorf("it is at %q by now: %w", now, gitsource.ErrMoved)
	}
}

// pack encodes what the host lacks of a commit: everything between it and the
// commits that the host has advertised or that came from there.
func (s *Store) pack(commit plumbing.Hash, advertised *packp.AdvRefs) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := map[plumbing.Hash]bool{}
	for _, hash := range advertised.References {
		there[hash] = true
	}
	hashes, err := s.lacking(commit, there)
	if errors.Is(err, errIncomplete) {
		return nil, s.missing(err)
	}
	if err != nil {
		return nil, err
	}
	// Encoded whole and under the lock: what Slipway pushes is a handful of small files.
	var pack strings.Builder
	if _, err := packfile.NewEncoder(&pack, s.disk, false).Encode(hashes, 0); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return io.NopCloser(strings.NewReader(pack.String())), nil
}

func (s *Store) lacking(commit plumbing.Hash, there map[plumbing.Hash]bool) ([]plumbing.Hash, error) {
	objects := map[plumbing.Hash]bool{}
	if !there[commit] {
		if err := s.readable(commit); err != nil {
			return nil, fmt.Errorf("commit %s: %w", commit, err)
		}
	}
	for todo := []plumbing.Hash{commit}; len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		if there[at] || objects[at] || !s.disk.madeHere(at) {
			continue
		}
		c, err := s.commit(at)
		if err != nil {
			return nil, fmt.Errorf("commit %s: %w: %w", at, errIncomplete, err)
		}
		objects[at] = true
		before := plumbing.ZeroHash
		if len(c.ParentHashes) > 0 {
			if parent, err := s.commit(c.ParentHashes[0]); err == nil {
				before = parent.TreeHash
			}
		}
		if err := s.changed(before, c.TreeHash, objects); err != nil {
			return nil, err
		}
		todo = append(todo, c.ParentHashes...)
	}
	return slices.Collect(maps.Keys(objects)), nil
}

// changed adds the trees and blobs of after that are not at the same path before.
func (s *Store) changed(before, after plumbing.Hash, objects map[plumbing.Hash]bool) error {
	if before == after {
		return nil
	}
	objects[after] = true
	tree, err := s.tree(after)
	if err != nil {
		return err
	}
	old := map[string]object.TreeEntry{}
	if !before.IsZero() {
		listing, err := s.tree(before)
		if err != nil {
			return err
		}
		for _, entry := range listing.Entries {
			old[entry.Name] = entry
		}
	}
	for _, entry := range tree.Entries {
		was := old[entry.Name]
		switch {
		case was.Hash == entry.Hash || entry.Mode == filemode.Submodule:
		case entry.Mode != filemode.Dir:
			objects[entry.Hash] = true
		case was.Mode == filemode.Dir:
			err = s.changed(was.Hash, entry.Hash, objects)
		default:
			err = s.changed(plumbing.ZeroHash, entry.Hash, objects)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
