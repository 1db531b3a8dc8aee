package analysis

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// State is all that a Rollout remembers. It is a value: Next never changes one that it is given.
type State struct {
	Phase v1alpha1.RolloutPhase
	// Stable is the last Bundle that passed, nil before the first.
	Stable *v1alpha1.BundleRef
	// Target is the Bundle that is rolled out or was judged last, nil before the first.
	Target *v1alpha1.BundleRef
	// Undo says that Target comes in without steps and analysis: it ran until lately.
	Undo bool
	// History are Bundles that were stable or have failed, newest first, at most MaxHistory.
	History []v1alpha1.PastBundle
	// StartedAt is when the deadline of Target began to run.
	StartedAt time.Time
	// Verdict on Target, nil while it is not judged.
	Verdict *v1alpha1.Verdict
	// Samples of Target so far, oldest first, at most MaxSamples.
	Samples []v1alpha1.Sample
	// Course of Target where the Strategy runs it beside Stable.
	Course Course
}

// MaxSamples bounds the evidence that is kept.
const MaxSamples = 20

// FromStatus reads the State that Into wrote.
func FromStatus(status v1alpha1.RolloutStatus) State {
	s := State{
		Phase:   status.Phase,
		Stable:  status.Stable.DeepCopy(),
		Target:  status.Target.DeepCopy(),
		Verdict: status.Verdict.DeepCopy(),
		Samples: slices.Clone(status.Samples),
		Undo:    status.Undo,
		History: slices.Clone(status.History),
	}
	if status.StartedAt != nil {
		s.StartedAt = status.StartedAt.Time
	}
	s.Course = courseFrom(status.Course)
	return s
}

// Into writes s to status and leaves all other fields alone.
func (s State) Into(status *v1alpha1.RolloutStatus) {
	status.Phase = s.Phase
	status.Stable = s.Stable.DeepCopy()
	status.Target = s.Target.DeepCopy()
	status.Verdict = s.Verdict.DeepCopy()
	status.Samples = slices.Clone(s.Samples)
	status.Undo, status.History = s.Undo, slices.Clone(s.History)
	status.StartedAt = nil
	if !s.StartedAt.IsZero() {
		status.StartedAt = &metav1.Time{Time: s.StartedAt}
	}
	status.Course = s.Course.into()
}

// Placed says which Bundle a workload has. The zero value is none.
type Placed struct {
	Bundle string // digest
	// Failed is the digest of the Bundle that this one had to replace. It stands
	// on the workload so that a Fail is known also when its record got lost.
	Failed string
}

// Want is what has to be in place. It is false when nothing is to be applied:
// before the first target, and when the first one ever failed, which stays as it is.
func (s State) Want() (v1alpha1.BundleRef, Placed, bool) {
	switch {
	case s.Target == nil:
		return v1alpha1.BundleRef{}, Placed{}, false
	case !s.failed():
		return *s.Target, Placed{Bundle: s.Target.Digest}, true
	case s.Stable == nil:
		return v1alpha1.BundleRef{}, Placed{}, false
	default:
		return *s.Stable, Placed{Bundle: s.Stable.Digest, Failed: s.Target.Digest}, true
	}
}

// Settled says that nothing happens without a new target or a change of the workload.
func (s State) Settled() bool {
	switch s.Phase {
	case v1alpha1.PhaseProgressing, v1alpha1.PhaseReturning, v1alpha1.PhasePaused:
		return false
	default:
		return true
	}
}

func (s State) failed() bool { return s.Verdict != nil && s.Verdict.Outcome == v1alpha1.VerdictFail }

// sample adds what was seen when it differs from the last sample. Samples are
// a twentieth of the deadline apart, unless last asks for one that shows the end.
func (s State) sample(o Observation, last bool) State {
	value := o.Workload.summary()
	if n := len(s.Samples); n > 0 {
		previous := s.Samples[n-1]
		if previous.Value == value || !last && o.Now.Sub(previous.At.Time) < o.deadline()/MaxSamples {
			return s
		}
	}
	s.Samples = append(slices.Clone(s.Samples), v1alpha1.Sample{
		At: metav1.Time{Time: o.Now.Truncate(time.Second)}, Check: checkAvailable, Value: value,
	})
	if len(s.Samples) > MaxSamples {
		s.Samples = slices.Delete(s.Samples, 1, 2) // the first shows where it began
	}
	return s
}

const checkAvailable = "available replicas"
