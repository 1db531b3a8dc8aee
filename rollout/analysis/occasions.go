package analysis

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// What a v1alpha1.RolloutOccasion may be.
const (
	OccasionStarted = "Started"
	OccasionStep    = "Step"
	OccasionPaused  = "Paused"
	OccasionResumed = "Resumed"
	OccasionPassed  = "Passed"
	OccasionFailed  = "Failed"
)

// Occasions are what happened between two States, in order: what others are told of.
func Occasions(before, after State, now time.Time) (all []v1alpha1.RolloutOccasion) {
	if after.Target == nil {
		return nil
	}
	one := func(what string) {
		o := v1alpha1.RolloutOccasion{
			What: what, At: metav1.Time{Time: now.Truncate(time.Second)}, Bundle: after.Target.Digest, Revision: after.Target.Revision,
			Phase: after.Phase, Step: int32(after.Course.Step), Weight: int32(after.Course.Weight),
		}
		if v := after.Verdict; v != nil && what != OccasionStarted && what != OccasionStep {
			o.Reason, o.Message = v.Reason, v.Message
		}
		all = append(all, o)
	}
	another := before.Target == nil || before.Target.Digest != after.Target.Digest
	was := before.Phase
	if another {
		was = v1alpha1.PhaseProgressing
		if after.Verdict == nil || after.Verdict.Reason != ReasonAlreadyStable {
			one(OccasionStarted)
		}
	}
	if !another && after.Course.Canary != nil && before.Course.Canary != nil && after.Course.Step > before.Course.Step && after.Phase != v1alpha1.PhaseHealthy {
		one(OccasionStep)
	}
	failed := after.failed() && (another || !before.failed())
	reason := func(s State) string {
		if s.Verdict == nil {
			return ""
		}
		return s.Verdict.Reason
	}
	switch {
	case failed:
		one(OccasionFailed)
	case after.Phase == v1alpha1.PhasePaused && (was != v1alpha1.PhasePaused || reason(before) != reason(after)):
		one(OccasionPaused)
	case after.Phase == v1alpha1.PhaseProgressing && was == v1alpha1.PhasePaused:
		one(OccasionResumed)
	case after.Phase == v1alpha1.PhaseHealthy && (another || was != v1alpha1.PhaseHealthy):
		one(OccasionPassed)
	}
	return all
}
