package gogit

import (
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// sign adds the signature to a commit. A Store that is to sign makes no commit without.
func (s *Store) sign(commit *object.Commit) error {
	if s.signs == nil {
		return nil
	}
	plain := &plumbing.MemoryObject{}
	if err := commit.EncodeWithoutSignature(plain); err != nil {
		return fmt.Errorf("git object: %w", err)
	}
	reader, err := plain.Reader()
	if err != nil {
		return fmt.Errorf("git object: %w", err)
	}
	payload, err := io.ReadAll(reader)
	if err != nil {
		return fmt.Errorf("git object: %w", err)
	}
	commit.PGPSignature, err = s.signs(payload) // go-git calls every signature that
	return err
}
