package analysis

import (
	"fmt"
	"reflect"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Reasons of events; those of Verdicts are used too.
const (
	EventStarted   = "RolloutStarted"
	EventPassed    = "RolloutPassed"
	EventFailed    = "RolloutFailed"
	EventPaused    = "RolloutPaused"
	EventResumed   = "RolloutResumed"
	EventForsaken  = "CanaryForsaken" // Warning
	EventRestarted = "RolloutRestarted"
	EventReturned  = "StableRestored"
	EventReturning = "RestoringStable"
)

// Next decides: what is known after o was seen in state s, and what to do now.
func Next(s State, o Observation) (State, []Effect) {
	step := step{State: s, o: o}
	step.retarget()
	step.recall()
	if step.findWay() {
		step.onCourse()
		step.trace(s)
		return step.State, step.onward(s)
	}
	switch step.Phase {
	case v1alpha1.PhaseProgressing:
		step.progressing()
	case v1alpha1.PhasePaused:
		step.paused()
	case v1alpha1.PhaseReturning:
		step.returning()
	}
	step.unblock()
	return step.State, step.effects(s)
}

// findWay is true when the target runs beside a stable version, or when something still does.
func (s *step) findWay() bool {
	way, some := s.o.Strategy.course()
	if some && s.Undo {
		way = way.quick()
	}
	s.way = way
	s.way.shrinks = way.shrinks && !s.o.Scaled                       // the canary comes on top
	if !some || s.Course.Canary != nil && s.Course.Way != way.name { // what a strategy before has told the router has to go
		s.way.routed = way.routed || s.o.Traffic.Knowledge == Present
	}
	return s.Stable != nil && (some || s.Course.Canary != nil || s.o.Canary.Knowledge == Present)
}

// step is one call of Next.
type step struct {
	State
	o       Observation
	way     course
	events  []Effect
	inspect bool
	// blocking are pods to evict.
	blocking []string
}

// retarget takes over what spec asks for. A spec without a Bundle is no news.
func (s *step) retarget() {
	asked := s.o.Target
	switch {
	case asked == nil && s.Target == nil:
		s.Phase = v1alpha1.PhasePending
	case asked == nil || s.Target != nil && *asked == *s.Target:
	case s.Target != nil && asked.Digest == s.Target.Digest:
		s.adopt(*asked)
	default:
		s.begin(*asked)
	}
}

// adopt notes that another Set has the same Bundle: what was found out about it holds.
func (s *step) adopt(asked v1alpha1.BundleRef) {
	s.Target = &asked
	if s.Stable != nil && s.Stable.Digest == asked.Digest {
		s.Stable = &asked
	}
	if s.Verdict != nil {
		s.Verdict = s.Verdict.DeepCopy()
		s.Verdict.SetDigest = asked.SetDigest
	}
}

// begin starts over with another target. One that passed before is not judged
// again: that is how a revert comes in, and it changes nothing that runs.
func (s *step) begin(asked v1alpha1.BundleRef) {
	s.Target, s.StartedAt, s.Verdict, s.Samples = &asked, s.now(), nil, nil
	s.Course.Leaving = s.Course.Canary != nil
	s.Undo = s.undoes(asked)
	if s.Stable != nil && s.Stable.Digest == asked.Digest {
		s.pass(Finding{Reason: ReasonAlreadyStable, Message: "this version has passed before and is not judged again"})
		return
	}
	s.Phase = v1alpha1.PhaseProgressing
	how := ""
	if s.Undo {
		how = ", which was stable until lately, without steps and analysis"
	}
	s.tell(false, EventStarted, fmt.Sprintf("rolling out %s%s", name(asked), how))
}

// recall finds a Fail whose record got lost: the workload says that the target was judged and replaced.
func (s *step) recall() {
	open := s.Phase == v1alpha1.PhaseProgressing || s.Phase == v1alpha1.PhasePaused
	if open && s.o.Workload.Placed.Failed == s.Target.Digest {
		s.fail(fail(ReasonReplaced, "it failed and was replaced before that could be recorded"))
	}
}

func (s *step) progressing() {
	if s.waitsForApply() {
		return
	}
	finding := Judge(s.o, s.o.Now.Sub(s.StartedAt))
	if finding.Look {
		s.inspect = true
		return
	}
	switch finding.Outcome {
	case v1alpha1.VerdictPass:
		s.State = s.sample(s.o, true)
		s.pass(finding)
	case v1alpha1.VerdictFail:
		s.State = s.sample(s.o, true)
		s.fail(finding)
	case v1alpha1.VerdictInconclusive:
		s.State = s.sample(s.o, true)
		s.pause(finding)
	default:
		s.State = s.sample(s.o, false)
	}
}

// waitsForApply says that the workload is not the target's yet and that nothing speaks against applying it.
func (s *step) waitsForApply() bool {
	w := s.o.Workload
	return s.o.Refusal == nil && w.Knowledge != Unknown && w.Placed.Bundle != s.Target.Digest
}

// paused waits until what was in the way is gone, then gives the target a new deadline.
func (s *step) paused() {
	if s.waitsForApply() {
		return
	}
	finding := Judge(s.o, s.o.deadline())
	if finding.Look {
		s.inspect = true
		return
	}
	switch {
	case finding.Outcome == v1alpha1.VerdictPass:
		s.State = s.sample(s.o, true)
		s.pass(finding)
	case finding.Outcome == v1alpha1.VerdictFail:
		s.Phase, s.StartedAt, s.Verdict = v1alpha1.PhaseProgressing, s.now(), nil
		s.tell(false, EventResumed, fmt.Sprintf("%s goes on with a new deadline", name(*s.Target)))
	case s.Verdict == nil || finding.Reason != s.Verdict.Reason:
		s.pause(finding)
	}
}

// returning ends when stable serves again.
func (s *step) returning() {
	_, want, _ := s.Want()
	if s.o.Workload.Placed == want && s.o.Workload.complete() {
		s.Phase = v1alpha1.PhaseFailed
		s.tell(false, EventReturned, fmt.Sprintf("%s serves again", name(*s.Stable)))
	}
}

func (s *step) pass(finding Finding) {
	s.Phase = v1alpha1.PhaseHealthy
	s.outlive()
	s.Stable = s.Target
	s.verdict(v1alpha1.VerdictPass, finding)
	s.tell(false, EventPassed, fmt.Sprintf("%s: %s", name(*s.Target), finding.Message))
}

func (s *step) fail(finding Finding) {
	s.Phase = v1alpha1.PhaseReturning
	after := ""
	if s.Stable == nil {
		s.Phase = v1alpha1.PhaseFailed
		after = " (it is the first version, so there is nothing to return to and it stays in place; roll out another one)"
	}
	s.remember(*s.Target, true)
	finding.Message += after
	s.verdict(v1alpha1.VerdictFail, finding)
	s.tell(true, EventFailed, fmt.Sprintf("%s: %s", name(*s.Target), finding.Message))
	if s.Stable != nil {
		s.tell(true, EventReturning, fmt.Sprintf("returning to %s", name(*s.Stable)))
	}
}

func (s *step) pause(finding Finding) {
	s.Phase = v1alpha1.PhasePaused
	s.verdict(v1alpha1.VerdictInconclusive, finding)
	s.tell(true, EventPaused, fmt.Sprintf("%s: %s", name(*s.Target), finding.Message))
}

// verdict closes the evidence.
func (s *step) verdict(outcome string, finding Finding) {
	s.Verdict = &v1alpha1.Verdict{
		Outcome: outcome, Reason: finding.Reason, Message: finding.Message,
		At: metav1.Time{Time: s.now()}, Bundle: s.Target.Digest, SetDigest: s.Target.SetDigest, Samples: s.Samples,
	}
	if outcome != v1alpha1.VerdictInconclusive {
		s.Verdict.Evidence = s.evidence()
		s.Samples = nil // they stand in the Verdict
	}
}

// effects lists what follows from the new State, in the order that keeps the promises of the package.
func (s *step) effects(before State) []Effect {
	var effects []Effect
	if !same(before, s.State) {
		effects = append(effects, Record{})
	}
	bundle, want, some := s.Want()
	place := some && s.o.Workload.Knowledge != Unknown && s.o.Workload.Placed != want
	retry := s.failed() && !failedBefore(before, s.State) // the refusal was about the target, and this is stable
	if place && (s.o.Refusal == nil || retry) {
		effects = append(effects, Apply{Bundle: bundle, Placed: want, Regardless: s.failed()})
	}
	effects = append(append(effects, s.events...), s.evictions()...)
	if s.inspect {
		return append(effects, Inspect{})
	}
	if !s.Settled() || some && s.o.Workload.Placed != want {
		effects = append(effects, WakeAt{At: s.wake()})
	}
	return effects
}

func same(a, b State) bool { return reflect.DeepEqual(a, b) }

func failedBefore(before, after State) bool {
	return before.failed() && before.Target.Digest == after.Target.Digest
}

// wake is the deadline or the next look, whatever comes first.
func (s *step) wake() time.Time {
	look := s.o.Now.Add(s.o.interval())
	if end := s.StartedAt.Add(s.o.deadline()); s.Phase == v1alpha1.PhaseProgressing && end.After(s.o.Now) && end.Before(look) {
		return end
	}
	return look
}

func (s *step) tell(warning bool, reason, message string) {
	s.events = append(s.events, Tell{Warning: warning, Reason: reason, Message: message})
}

// now is in whole seconds, as the API server keeps it.
func (s *step) now() time.Time { return s.o.Now.Truncate(time.Second) }

// name is how people know a Bundle.
func name(bundle v1alpha1.BundleRef) string { return "Bundle " + bundle.Name }
