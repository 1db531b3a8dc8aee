package gogit

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1" //nolint:gosec // the format of packs
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"github.com/slipway-cd/slipway/gitsource"
)

// errIncomplete says that an object which must be here is missing or broken.
var errIncomplete = errors.New("the store is broken here; the next fetch makes it anew")

// remake fetches a commit afresh beside the store, takes along what is pinned, and
// swaps. If ref is not empty, the commit is where it is seen. The host is asked for
// wanted: the commit, or a tag that names it. Other refs are fetched
// again when they are asked for. The network must be held.
func (s *Store) remake(ctx context.Context, ref string, tip, wanted plumbing.Hash) error {
	s.mu.Lock()
	old, mending := s.disk.storage, s.suspect
	s.mu.Unlock()
	generations, err := s.generations()
	if err != nil {
		return err
	}
	number := 1 + slices.Max(append(generations, 0))
	folder := s.folder(number) + unfinished
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	fresh, err := create(folder)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }() // nothing, once it has its name
	if err := s.fetchAlone(ctx, fresh, want{ids: []plumbing.Hash{wanted}, depth: 1}); err != nil {
		return err
	}
	if ref != "" {
		if err := fresh.SetReference(plumbing.NewHashReference(tipName(ref), tip)); err != nil {
			return fmt.Errorf("git store: %w", err)
		}
	}
	if err := s.takeAlong(ctx, open(old.folder), fresh); err != nil {
		return err
	}
	packed := fresh.packs()
	if err := os.Rename(folder, s.folder(number)); err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if mending {
		s.mended = s.now()
	}
	replaced := s.current
	before := open(s.folder(replaced)) // without the caches of the one in use
	s.use(&layers{storage: open(s.folder(number)), before: &before}, number, packed)
	return s.removeAllBut(number, replaced)
}

// takeAlong brings pinned commits into a new generation: from the old one, or from
// the host if the old one is broken.
func (s *Store) takeAlong(ctx context.Context, old, fresh storage) error {
	pins, err := localRefs(old)
	if err != nil {
		return nil //nolint:nilerr // nobody knows what was pinned; it is fetched by its commit when it is asked for
	}
	maps.DeleteFunc(pins, func(name plumbing.ReferenceName, _ plumbing.Hash) bool {
		return !strings.HasPrefix(string(name), healthyPrefix)
	})
	commits := slices.Compact(slices.SortedFunc(maps.Values(pins), func(a, b plumbing.Hash) int { return bytes.Compare(a[:], b[:]) })) // many pin the same
	if err := carry(old, fresh, commits); err != nil {
		for _, commit := range commits { // each for itself: one may be broken
			if err := carry(old, fresh, []plumbing.Hash{commit}); err == nil {
				continue
			}
			// Unknown keeps the old store; that the host has dropped a commit must not stop us from following the branch.
			err := s.fetchAlone(ctx, fresh, want{ids: []plumbing.Hash{commit}, depth: 1})
			if err != nil && !errors.Is(err, gitsource.ErrNotFound) {
				return err
			}
		}
	}
	for name, commit := range pins {
		if !fresh.has(commit) {
			continue
		}
		if err := fresh.SetReference(plumbing.NewHashReference(name, commit)); err != nil {
			return fmt.Errorf("git store: %w", err)
		}
	}
	return nil
}

// settle brings a commit or tree that only the generation before has into the one in
// use, so that it may be built upon. The lock must be held.
func (s *Store) settle(root plumbing.Hash) error {
	if s.disk.has(root) {
		return nil
	}
	if s.disk.before == nil || !s.disk.before.has(root) {
		return fmt.Errorf("%w: it is not in the store", gitsource.ErrNotFound)
	}
	return carry(*s.disk.before, s.disk.storage, []plumbing.Hash{root})
}

// carry copies objects and all that their trees hold from one store into another, as
// one pack. Commits arrive without their history. One object at a time is in memory.
func carry(from, to storage, roots []plumbing.Hash) error {
	list, shallow, err := closure(from, to, roots)
	if err != nil || len(list) == 0 {
		return err
	}
	for _, at := range list { // first: a pack that breaks off leaves litter
		if err := from.HasEncodedObject(at); err != nil {
			return fmt.Errorf("object %s: %w", at, err)
		}
	}
	if err := to.updateShallow(shallow, nil); err != nil {
		return err
	}
	writer, err := to.PackfileWriter()
	if err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	err = writePack(writer, from, list)
	if closeErr := writer.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("git store: %w", closeErr)
	}
	to.Reindex()
	return err
}

// closure lists what of the roots is not there yet, and the commits among it that have parents.
func closure(from, to storage, roots []plumbing.Hash) (list, shallow []plumbing.Hash, err error) {
	seen := map[plumbing.Hash]bool{}
	add := func(hash plumbing.Hash) bool {
		if seen[hash] || to.has(hash) {
			return false
		}
		seen[hash] = true
		list = append(list, hash)
		return true
	}
	var trees []plumbing.Hash
	for _, root := range roots {
		if !add(root) {
			continue
		}
		if commit, err := object.GetCommit(from, root); err == nil {
			if len(commit.ParentHashes) > 0 {
				shallow = append(shallow, root)
			}
			if add(commit.TreeHash) {
				trees = append(trees, commit.TreeHash)
			}
			continue
		}
		trees = append(trees, root)
	}
	for len(trees) > 0 {
		at := trees[len(trees)-1]
		trees = trees[:len(trees)-1]
		tree, err := object.GetTree(from, at)
		if err != nil {
			return nil, nil, fmt.Errorf("tree %s: %w", at, err)
		}
		for _, entry := range tree.Entries {
			if entry.Mode == filemode.Submodule || !add(entry.Hash) {
				continue
			}
			if entry.Mode == filemode.Dir {
				trees = append(trees, entry.Hash)
			}
		}
	}
	return list, shallow, nil
}

// writePack writes objects without deltas (gitformat-pack, version 2). go-git's
// encoder would hold all of them in memory.
func writePack(w io.Writer, from storer.EncodedObjectStorer, list []plumbing.Hash) error {
	sum := sha1.New() //nolint:gosec // the format of packs
	out := io.MultiWriter(w, sum)
	header := append([]byte("PACK"), 0, 0, 0, 2)
	header = binary.BigEndian.AppendUint32(header, uint32(len(list))) //nolint:gosec // a store has fewer objects
	if _, err := out.Write(header); err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	deflate := zlib.NewWriter(out)
	for _, at := range list {
		encoded, err := from.EncodedObject(plumbing.AnyObject, at)
		if err != nil {
			return fmt.Errorf("object %s: %w", at, err)
		}
		if err := writeObject(out, deflate, encoded); err != nil {
			return fmt.Errorf("object %s: %w", at, err)
		}
	}
	return trailer(w, sum)
}

func trailer(w io.Writer, sum hash.Hash) error {
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	return nil
}

func writeObject(out io.Writer, deflate *zlib.Writer, o plumbing.EncodedObject) error {
	size := uint64(o.Size()) //nolint:gosec // never negative
	first := byte(o.Type())<<4 | byte(size&0x0f)
	var header []byte
	for size >>= 4; size > 0; size >>= 7 {
		header = append(header, first|0x80)
		first = byte(size & 0x7f)
	}
	if _, err := out.Write(append(header, first)); err != nil {
		return err
	}
	deflate.Reset(out)
	content, err := o.Reader()
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	if _, err := io.Copy(deflate, content); err != nil {
		return err
	}
	return deflate.Close()
}
