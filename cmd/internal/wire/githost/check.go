package githost

import (
	"context"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
)

// Check shows at a commit how a check of it ended.
func (h *Host) Check(ctx context.Context, commit gitsource.ObjectID, s forge.Status) error {
	return reachable(h.client.Status(ctx, commit, s))
}
