package rollout

import (
	"fmt"
	"strings"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Names of the failpoints, in the order in which a course comes by them.
const (
	// FailpointLook is before a Rollout is looked at.
	FailpointLook = "before-look"
	// FailpointRecord is after the State was written, if that was news, and before anything is done for it.
	FailpointRecord = "after-record"
	// FailpointVerdict is after a Fail was written, or could not be, and before traffic returns.
	FailpointVerdict = "after-verdict-before-traffic"
	// FailpointArrange is before a Bundle is put in place, alone or beside another one.
	FailpointArrange = "before-arrange"
	// FailpointStable is after stable's workload was applied where something runs beside it.
	FailpointStable = "after-stable"
	// FailpointCanary is after the workload beside stable was applied, and before the Services that send to it.
	FailpointCanary = "after-canary"
	// FailpointMoved is after Services and Routes were told where traffic goes, and before the rest follows.
	FailpointMoved = "after-traffic-before-rest"
	// FailpointRemoval is before the first object that was beside stable is deleted.
	FailpointRemoval = "before-removal"
	// FailpointRemoved is after one was deleted, while there may be others.
	FailpointRemoved = "in-removal"
	// FailpointTraffic is after a Bundle was put in place and before that is written down.
	FailpointTraffic = "after-traffic"
)

// Failpoints are the names of all of them.
func Failpoints() []string {
	return []string{
		FailpointLook, FailpointRecord, FailpointVerdict, FailpointArrange, FailpointStable, FailpointCanary, FailpointMoved,
		FailpointRemoval, FailpointRemoved, FailpointTraffic,
	}
}

// failpoint calls Options.Failpoint with a name, with NAME@NAMESPACE and with NAME@NAMESPACE/WHERE (see whereabouts), so that
// a test can tell the Rollouts of one agent apart.
func (r *Reconciler) failpoint(name string, rollout *v1alpha1.Rollout) {
	r.options.Failpoint(name)
	r.options.Failpoint(name + "@" + rollout.Namespace)
	r.options.Failpoint(name + "@" + rollout.Namespace + "/" + whereabouts(rollout.Status))
}

// whereabouts is how far a Rollout has come, in a word: step-N counting from one, promoting, withdrawing without a Fail,
// leaving because the target is another one, returning to stable after a Fail, also when Git does so by now, or else its
// phase.
func whereabouts(status v1alpha1.RolloutStatus) string {
	course := status.Course
	switch {
	case course == nil || course.Canary == nil || status.Phase == v1alpha1.PhaseReturning:
		return strings.ToLower(string(status.Phase))
	case course.Withdrawn:
		return "withdrawing"
	case course.Leaving && status.Phase == v1alpha1.PhaseHealthy:
		return "returning"
	case course.Leaving:
		return "leaving"
	case course.Promoting:
		return "promoting"
	}
	return fmt.Sprintf("step-%d", course.Step+1)
}
