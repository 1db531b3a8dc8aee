package rollout

import (
	"encoding/json"
	"time"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// StateOf is how far a Rollout has come, for people and for reports.
func StateOf(rollout *v1alpha1.Rollout, now time.Time) v1alpha1.RolloutState {
	known := rollout.Status
	state := v1alpha1.RolloutState{
		Namespace: rollout.Namespace, Name: rollout.Name, Application: rollout.Labels[manifests.LabelApplication],
		Phase: known.Phase, Stable: known.Stable, Target: known.Target, Undo: known.Undo, Verdict: known.Verdict,
	}
	if course := known.Course; course != nil && course.Canary != nil {
		state.Step, state.Weight, state.Header = course.Step+1, course.Weight, course.Header
		state.Metrics, state.Trail = Metrics(rollout), course.Trail
		if strategy, err := strategyOf(rollout); err == nil {
			state.Steps = int32(strategy.Length(known.Undo))
		}
	} else if known.Verdict != nil && known.Verdict.Evidence != nil {
		state.Trail = known.Verdict.Evidence.Trail
	}
	state.Order = orderFor(rollout, now)
	return state
}

// orderFor is what a person wants of the target, if that is in force.
func orderFor(rollout *v1alpha1.Rollout, now time.Time) *v1alpha1.RolloutOrder {
	var order v1alpha1.RolloutOrder
	target := rollout.Status.Target
	if json.Unmarshal([]byte(rollout.Annotations[manifests.AnnotationOrder]), &order) != nil || target == nil || order.Bundle != target.Digest || !now.Before(order.Until) {
		return nil
	}
	return &order
}
