package gogit

import (
	"errors"
	"fmt"
	"syscall"
)

// roomy says of a disk that takes no more what can be done about it. It leaves out which of its files could not be written:
// that is another one each time, and a status must not change with each attempt.
func (s *Store) roomy(err error) error {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, full) {
			return fmt.Errorf("git store %s: %w: free space on that disk, or make it larger; until then what was fetched before stays in use", s.dir, full)
		}
	}
	return err
}
