package gitsource

import (
	"fmt"
	"time"
)

// BusyError says that a host wants to be left alone for a while. It is an ErrUnreachable.
type BusyError struct {
	Host  string
	After time.Duration // until it may be asked again
}

// Error names the host and the time.
func (e *BusyError) Error() string {
	return fmt.Sprintf("%s wants to be left alone for %s", e.Host, e.After.Round(time.Second))
}

// Unwrap returns ErrUnreachable: nothing is known about any ref.
func (e *BusyError) Unwrap() error { return ErrUnreachable }
