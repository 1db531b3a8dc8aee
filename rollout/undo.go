package rollout

import (
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// undoOf is which versions of a Rollout may come back without steps and analysis.
func undoOf(rollout *v1alpha1.Rollout) analysis.Undo {
	window := rollout.Spec.Undo
	if window == nil {
		return analysis.Undo{}
	}
	return analysis.Undo{Revisions: int(window.Revisions), Within: window.Within.Duration}
}
