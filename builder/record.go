package builder

import (
	"errors"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
)

// ErrConflict says that somebody else has changed what a compare-and-swap was to change: read again.
var ErrConflict = errors.New("changed by somebody else")

// Delivery is a push that a Git host told of, as it is stored before the host gets its answer.
type Delivery struct {
	// ID is what the Git host called its message. With the repository, the ref and the commit it tells whether a
	// Delivery is one that was stored before; so it has to come from what the host has signed, not beside it.
	ID         string             `json:"id"`
	Repo       Repo               `json:"repo"`
	Revision   gitsource.Revision `json:"revision"`
	Actor      string             `json:"actor,omitempty"`
	ReceivedAt time.Time          `json:"receivedAt"`
}

// Record is a stored value with the revision that a compare-and-swap has to name.
type Record struct {
	Key      string
	Value    []byte
	Revision uint64 // 0 stands for "not there"
}
