package gogit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/slipway-cd/slipway/gitsource"
)

// Names of local refs. Those of pins survive making the store anew.
const (
	tipPrefix     = "refs/slipway/tips/"    // + a ref of the host: where it was last seen
	healthyPrefix = "refs/slipway/healthy/" // + a pin's name
)

// flat makes one path element of a name, so that "a" and "a/b" can follow each
// other: refs are files, and a file is in the way of a folder.
func flat(name string) string {
	const longest = 200 // file names end at 255 bytes
	name = strings.NewReplacer("%", "%25", "/", "%2F").Replace(name)
	if len(name) > longest {
		sum := sha256.Sum256([]byte(name))
		name = "%" + hex.EncodeToString(sum[:])
	}
	return name
}

func tipName(ref string) plumbing.ReferenceName {
	return plumbing.ReferenceName(tipPrefix + flat(strings.TrimPrefix(ref, "refs/")))
}

func pinName(name string) (plumbing.ReferenceName, error) {
	if plumbing.ReferenceName(healthyPrefix+name).Validate() != nil || strings.Contains(name, "..") {
		return "", fmt.Errorf("pin %q: not a name", name)
	}
	return plumbing.ReferenceName(healthyPrefix + flat(name)), nil
}

// Pin keeps a commit readable under a name, also when the branch leaves it behind.
// The commit must be here; gitsource.ErrNotFound if it is not.
func (s *Store) Pin(name string, id gitsource.ObjectID) error {
	ref, err := pinName(name)
	if err != nil {
		return err
	}
	hash, err := hashOf(id)
	if err != nil {
		return fmt.Errorf("pin %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, err := s.disk.Reference(ref); err == nil && old.Hash() == hash {
		return nil
	}
	if err := s.readable(hash); err != nil {
		return fmt.Errorf("pin %s: commit %s: %w", name, id, err)
	}
	if err := s.settle(hash); err != nil {
		return fmt.Errorf("pin %s: commit %s: %w", name, id, err)
	}
	if err := s.disk.SetReference(plumbing.NewHashReference(ref, hash)); err != nil {
		return fmt.Errorf("pin %s: git store: %w", name, err)
	}
	return nil
}

// Unpin forgets a pin; one that is not there is no error.
func (s *Store) Unpin(name string) error {
	ref, err := pinName(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.disk.RemoveReference(ref); err != nil {
		return fmt.Errorf("unpin %s: git store: %w", name, err)
	}
	return nil
}

// lastSeen is where ref was; zero if it was never fetched. The lock must be held.
func (s *Store) lastSeen(ref string) plumbing.Hash {
	seen, err := s.disk.Reference(tipName(ref))
	if err != nil {
		return plumbing.ZeroHash
	}
	return seen.Hash()
}

// see remembers where ref is, and forgets refs that the host has no more. The lock must be held.
func (s *Store) see(ref string, hash plumbing.Hash, onHost map[string]plumbing.Hash) error {
	refs, err := localRefs(s.disk.storage)
	if err != nil {
		return s.missing(fmt.Errorf("git store: %w", err))
	}
	known := map[plumbing.ReferenceName]bool{tipName(ref): true}
	for name := range onHost {
		known[tipName(name)] = true
	}
	for name := range refs {
		if strings.HasPrefix(string(name), tipPrefix) && !known[name] {
			if err := s.disk.RemoveReference(name); err != nil {
				return fmt.Errorf("git store: %w", err)
			}
		}
	}
	if err := s.disk.SetReference(plumbing.NewHashReference(tipName(ref), hash)); err != nil {
		return fmt.Errorf("git store: %w", err)
	}
	return nil
}

// readable fails if a commit cannot be read: with gitsource.ErrNotFound if it is
// not here. One that is here and broken makes the store suspect. The lock must be held.
func (s *Store) readable(hash plumbing.Hash) error {
	err := readable(s.disk, hash)
	if err == nil || errors.Is(err, plumbing.ErrObjectNotFound) && !s.disk.has(hash) {
		if err != nil && s.named(hash) {
			return s.missing(fmt.Errorf("commit %s: %w", hash, errIncomplete))
		}
		return notFound(err)
	}
	if found, broken := s.disk.EncodedObject(plumbing.AnyObject, hash); broken == nil && found.Type() != plumbing.CommitObject {
		return fmt.Errorf("%w: it is a %s, not a commit", gitsource.ErrNotFound, found.Type())
	}
	return s.missing(fmt.Errorf("git store: %w", err))
}

// named reports whether a ref of ours says that a commit is here. The lock must be held.
func (s *Store) named(hash plumbing.Hash) bool {
	refs, err := localRefs(s.disk.storage)
	if err != nil {
		return true // then something is broken
	}
	for _, at := range refs {
		if at == hash {
			return true
		}
	}
	return false
}
