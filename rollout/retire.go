package rollout

import "github.com/slipway-cd/slipway/rollout/analysis"

// retires says that a canary by Routes is on its way out, without any traffic of theirs. Who calls the Service itself still
// gets to its pods, by their labels: as long as they are there it is pinned to stable's. One that became stable is no worse
// than that, and where stable is small it keeps its share until stable has grown.
func (w *arranging) retires() bool {
	canary := w.o.Canary
	return byRoutes(w.rollout) && w.Arrangement.Canary == nil && canary.Knowledge == analysis.Present && canary.Placed.Bundle != w.Stable.Digest
}
