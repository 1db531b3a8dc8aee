package builder

import "github.com/slipway-cd/slipway/gitsource"

// RunFilter says which Runs to show; its zero value all.
type RunFilter struct {
	Repo   string // name
	Branch string
	Commit gitsource.ObjectID
	Trace  string
	Digest string  // of an image that a Job of it built
	States []State // any of them
	Before string  // Runs that are older than the one with this id
	Limit  int     // 50 if 0; servers give at most 200
}
