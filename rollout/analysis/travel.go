package analysis

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// onCourse is Next with a canary beside stable.
func (s *step) onCourse() {
	s.follow()
	s.withdraw()
	s.take()
	s.listen()
	s.obey()
	switch s.Phase {
	case v1alpha1.PhaseProgressing:
		s.travel()
	case v1alpha1.PhasePaused:
		s.halted()
	case v1alpha1.PhaseReturning:
		s.retreat()
	case v1alpha1.PhaseHealthy:
		if s.Course.Weight == 0 && (!s.way.ordinal || s.returned()) {
			s.Course = Course{}
		}
	}
	s.unblock()
	s.begins()
}

// follow starts over from stable when the Strategy is not the one that the course began with. To have changed it is a
// person's answer to whatever the Rollout waited for.
func (s *step) follow() {
	if s.Course.Canary == nil || s.Course.Leaving || s.failed() || s.Settled() || s.Course.Way == s.way.name {
		return
	}
	s.Course.Leaving, s.Course.Withdrawn = true, false
	s.Phase, s.Verdict, s.Course.Lacks = v1alpha1.PhaseProgressing, nil, time.Time{}
	s.tell(false, EventRestarted, fmt.Sprintf("%s starts over: the strategy has changed", name(*s.Target)))
}

// withdraw takes traffic from a canary that leaves: all at once where stable is in full size, else as much as stable can
// take. It never gives any.
func (s *step) withdraw() {
	if !s.leaves() {
		return
	}
	s.Course.Header, s.Course.Promoting = Header{}, false
	if s.way.ordinal { // stable's pods come as those of the canary go
		s.Course.Weight = 0
		return
	}
	weight, w := 0, s.o.Workload
	smaller := w.Knowledge == Present && (w.Placed.Bundle != s.Stable.Digest || w.Wanted < s.o.Size) // by a strategy before, or while it is updated
	if (s.way.shrinks || smaller) && s.o.Size > 0 {
		able := int64(0)
		if w.Knowledge == Present && w.Current && w.Placed.Bundle == s.Stable.Digest {
			able = int64(min(w.Available, w.Updated, s.o.Size))
		}
		weight = 100 - int(100*able/int64(s.o.Size))
	}
	if s.way.preview && weight > 0 { // Services send to one version or the other
		weight = 100
	}
	s.Course.Weight = min(s.Course.Weight, weight)
}

// ordered is an order for the target that is in force, nil for none.
func (s *step) ordered() *Order {
	if o := s.o.Order; o != nil && o.Bundle == s.Target.Digest && s.o.Now.Before(o.Until) {
		return o
	}
	return nil
}

// obey takes the canary out while a person wants that. After it the target starts over, because Git still asks for it.
func (s *step) obey() {
	open := s.Phase == v1alpha1.PhaseProgressing || s.Phase == v1alpha1.PhasePaused
	aborted := s.Phase == v1alpha1.PhasePaused && s.Verdict.Reason == ReasonAborted
	switch order := s.ordered(); {
	case !open:
	case order != nil && order.Abort && !aborted:
		s.stop(Finding{Reason: ReasonAborted, Message: order.Why, Then: Rollback})
	case aborted && (order == nil || !order.Abort):
		s.Course.Leaving, s.Course.Withdrawn = s.Course.Canary != nil, false
		s.Course.Tallies, s.Course.Background = nil, nil
		s.resume("starts over: the abort is over")
	}
}

// travel goes as many steps as what is seen allows.
func (s *step) travel() {
	if s.replaces() {
		return
	}
	for {
		finding := s.check(false)
		switch {
		case finding.Look:
			s.inspect = true
			return
		case finding.Outcome == v1alpha1.VerdictFail:
			s.fail(finding)
			s.withdraw()
			return
		case finding.Outcome == v1alpha1.VerdictInconclusive:
			s.stop(finding)
			return
		case finding.Outcome == "", s.ordered() != nil, !s.cleared():
			return
		case s.Course.Step == len(s.way.steps) && s.way.routed && !s.Course.Promoting && !s.arranged():
			return // the canary comes back from where no pod of it was left
		case s.Course.Step == len(s.way.steps):
			s.promote()
			return
		case !s.reached(s.way.steps[s.Course.Step]):
			return
		}
		s.Course.Step++
		s.Course.Since, s.Course.Tallies = s.now(), nil
		s.forgetAnswers()
	}
}

// replaces is true while what was beside stable before is not out of the way; then it starts the course of the target.
// The pods of a canary that has traffic are never exchanged: the new version starts from stable, without any.
func (s *step) replaces() bool {
	if s.Course.Canary != nil && !s.Course.Leaving {
		return false
	}
	free := s.o.Canary.Knowledge == Absent && (!s.way.ordinal || s.returned())
	if s.way.routed {
		without := s.o.Traffic.Knowledge == Present && s.o.Traffic.Weight == 0 && s.o.Traffic.Header == Header{}
		free = without && s.o.Canary.Knowledge != Unknown
	}
	if s.Course.Weight > 0 || !free {
		return true
	}
	if s.way.name == "" { // the workload itself becomes the target
		s.Course, s.StartedAt = Course{}, s.now()
		return true
	}
	s.Course = Course{Canary: s.Target, Way: s.way.name, Since: s.now()}
	s.keepsScale()
	return false
}

// check says whether the canary is large enough and good enough for what it is given: Pass, Fail, Inconclusive, or
// nothing while that is open. Late asks as if the deadline were over.
func (s *step) check(late bool) Finding {
	metrics := s.judge()
	if metrics.Outcome == v1alpha1.VerdictFail || metrics.Outcome == v1alpha1.VerdictInconclusive {
		return metrics
	}
	if s.large() {
		s.Course.Lacks = time.Time{}
		return s.hindered(metrics, late)
	}
	if s.Course.Lacks.IsZero() {
		s.Course.Lacks = s.now()
	}
	elapsed, o := s.o.Now.Sub(s.Course.Lacks), s.o
	if late {
		elapsed = max(elapsed, o.deadline())
	}
	if !s.Course.Promoting && !s.way.ordinal {
		o.Workload = o.Canary
	}
	placed := o.Workload.Placed.Bundle == s.Target.Digest
	if o.Refusal == nil && o.Workload.Knowledge != Unknown && !placed {
		return Finding{} // it is about to be applied
	}
	if o.Refusal != nil && o.Refusal.Waits && placed {
		o.Refusal = nil // pods that do not come say why
	}
	finding := Judge(o, elapsed)
	if finding.Outcome == v1alpha1.VerdictPass {
		return Finding{} // all that was asked for is there, and more is asked for now
	}
	return finding
}

// large says that the canary, or at the end the workload that becomes the target, has all the pods that it needs.
func (s *step) large() bool {
	if s.way.ordinal {
		return s.taken()
	}
	if s.Course.Promoting {
		w := s.o.Workload
		return w.Placed.Bundle == s.Target.Digest && w.Wanted == s.o.Size && w.complete()
	}
	w, size := s.o.Canary, s.size(s.way, s.o)
	return w.Knowledge == Present && w.Current && w.Placed.Bundle == s.Target.Digest && w.Updated >= size && w.Available >= size
}

// reached does a step. It is true when what the step asks for is the case.
func (s *step) reached(step Step) bool {
	switch {
	case step.Weight != nil:
		s.Course.Weight = *step.Weight
		a, _ := s.arrangement(s.way, s.o)
		return a.Weight == s.Course.Weight && s.arranged()
	case step.Replicas != nil:
		s.Course.Replicas = *step.Replicas
		return s.large() && s.arranged()
	case step.Header != nil:
		s.Course.Header = *step.Header
		return s.arranged() && !s.forsaken(s.way, s.o)
	case step.Pause != nil && step.Pause.For > 0:
		return !s.o.Now.Before(s.Course.Since.Add(step.Pause.For))
	case step.Pause != nil:
		return s.approved(s.Course.Since.Add(-1))
	default:
		return s.Course.Tallies != nil && JudgeMetrics(step.Analysis, s.Course.Tallies).Outcome == v1alpha1.VerdictPass
	}
}

func (s *step) arranged() bool {
	a, some := s.arrangement(s.way, s.o)
	return some && a.inPlace(s.way, s.o)
}

// approved says that a person said yes to this step after that time.
func (s *step) approved(after time.Time) bool {
	a := s.o.Approval
	return a != nil && a.Bundle == s.Target.Digest && a.Step == s.Course.Step && a.At.After(after)
}

// promote updates stable's workload while the canary has all traffic. Then the target is stable.
func (s *step) promote() {
	if !s.Course.Promoting && !s.way.ordinal {
		s.Course.Promoting, s.Course.Since = true, s.now()
	}
	if s.large() {
		s.pass(Finding{Reason: ReasonAvailable, Message: fmt.Sprintf("it has gone all steps, and all %d replicas are available", s.o.Size)})
		s.Course = Course{}
	}
}

// stop pauses. If the spec wants stable to have all traffic meanwhile, the canary is taken out.
func (s *step) stop(finding Finding) {
	s.pause(finding)
	if finding.Then == Rollback {
		s.Course.Withdrawn = true
		s.withdraw()
	}
}

// halted waits until what was in the way is gone, or for a person where that does not show by itself.
func (s *step) halted() {
	if s.approved(s.Verdict.At.Time) {
		s.Course.Leaving, s.Course.Withdrawn = s.Course.Leaving || s.Course.Withdrawn, false
		s.Course.Tallies, s.Course.Background = nil, nil
		s.resume("was approved")
		return
	}
	if s.Course.Withdrawn || s.replaces() {
		return
	}
	finding := s.check(true)
	fault := finding.Outcome == v1alpha1.VerdictFail
	switch {
	case finding.Look:
		s.inspect = true
	case fault && s.judge().Outcome == v1alpha1.VerdictFail:
		s.fail(finding)
		s.withdraw()
	case s.stuck():
	case fault || finding.Outcome != v1alpha1.VerdictInconclusive:
		s.resume("goes on with a new deadline")
	case finding.Reason != s.Verdict.Reason || finding.Then == Rollback, finding.Reason == ReasonMissing && finding.Message != s.Verdict.Message:
		s.stop(finding)
	}
}

func (s *step) resume(how string) {
	s.Phase, s.Verdict, s.Course.Lacks, s.Course.Hindered = v1alpha1.PhaseProgressing, nil, time.Time{}, time.Time{}
	s.tell(false, EventResumed, fmt.Sprintf("%s %s", name(*s.Target), how))
}

// retreat ends when stable has all traffic and the canary is gone.
func (s *step) retreat() {
	if s.Course.Weight == 0 && s.arranged() && s.o.Workload.complete() {
		s.Course = Course{}
		s.Phase = v1alpha1.PhaseFailed
		s.tell(false, EventReturned, fmt.Sprintf("%s serves again", name(*s.Stable)))
	}
}

// atEnd says that all steps are done, and that only what watches from the background is waited for.
func (s *step) atEnd() bool { return s.Course.Step == len(s.way.steps) && !s.Course.Promoting }

// judge is what the metrics say. What is still open holds up nothing but its own step and the end.
func (s *step) judge() Finding {
	metrics, tallies := s.watched()
	if s.atEnd() && s.Course.Background != nil {
		metrics = s.way.background
	}
	finding := JudgeMetrics(metrics, tallies)
	if finding.Outcome == "" && !s.atEnd() {
		finding.Outcome = v1alpha1.VerdictPass
	}
	return finding
}

// watched are the metrics that are measured now: those in the background without an end.
func (s *step) watched() (metrics []Metric, tallies []Tally) {
	if s.Course.Background != nil {
		for _, m := range s.way.background {
			m.Count = math.MaxInt
			for _, test := range []**Test{&m.Errors, &m.Latency} {
				if *test != nil {
					endless := **test
					endless.MaxSamples = 0
					*test = &endless
				}
			}
			metrics = append(metrics, m)
		}
		tallies = append(tallies, s.Course.Background...)
	}
	if s.Course.Tallies != nil && s.Course.Step < len(s.way.steps) {
		metrics = append(metrics, s.way.steps[s.Course.Step].Analysis...)
		tallies = append(tallies, s.Course.Tallies...)
	}
	return metrics, tallies
}

// begins starts what is to be measured from now on.
func (s *step) begins() {
	if s.Phase != v1alpha1.PhaseProgressing || s.leaves() {
		return
	}
	if s.Course.Background == nil && len(s.way.background) > 0 && (s.Course.Weight > 0 || s.Course.Header != Header{}) {
		s.Course.Background = tallies(s.way.background, s.now())
	}
	if s.Course.Tallies == nil && s.Course.Canary != nil && s.Course.Step < len(s.way.steps) && s.Course.Lacks.IsZero() && s.cleared() {
		s.Course.Tallies = tallies(s.way.steps[s.Course.Step].Analysis, s.now())
	}
}

func tallies(metrics []Metric, now time.Time) (all []Tally) {
	for range metrics {
		all = append(all, Tally{Started: now})
	}
	return all
}

// take notes what was measured. A metric that was due and has no Look got no answer.
func (s *step) take() {
	if s.o.Looks == nil {
		return
	}
	metrics, seen := s.watched()
	taken := slices.Clone(seen)
	for i, m := range metrics {
		look, measured := s.o.Looks[m.Name]
		if !measured && seen[i].Started.Equal(s.now()) {
			continue // it began after these looks
		}
		if !measured {
			look = Look{At: s.o.Now, Unavailable: "it was not measured"}
		}
		taken[i] = m.Take(seen[i], look)
	}
	background := len(s.Course.Background)
	if background > 0 {
		s.Course.Background = taken[:background:background]
	}
	if s.Course.Tallies != nil {
		s.Course.Tallies = taken[background:]
	}
}

// due are the metrics to look at now; next is when that will be the case for any. What nobody answers is not measured.
func (s *step) due() (now Measure, next time.Time) {
	if s.leaves() || s.forsaken(s.way, s.o) {
		return now, next
	}
	metrics, tallies := s.watched()
	for i, m := range metrics {
		if m.done(tallies[i]) {
			continue
		}
		at := m.Due(tallies[i])
		if !at.After(s.o.Now) {
			now.Names, now.Due = append(now.Names, m.Name), append(now.Due, at)
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return now, next
}

// onward lists what follows from the new State, as effects does for a workload alone.
func (s *step) onward(before State) []Effect {
	var effects []Effect
	if !same(before, s.State) {
		effects = append(effects, Record{})
	}
	a, some := s.arrangement(s.way, s.o)
	placed := some && a.inPlace(s.way, s.o)
	known := s.o.Workload.Knowledge != Unknown && s.o.Canary.Knowledge != Unknown && (!s.way.routed || s.o.Traffic.Knowledge != Unknown)
	retry := s.o.Refusal == nil || s.failed() && !failedBefore(before, s.State)
	if some && !placed && retry && (known || s.failed()) {
		effects = append(effects, Arrange{Arrangement: a, Regardless: s.failed()})
		if s.forsaken(s.way, s.o) && (s.o.Traffic.Weight > 0 || s.o.Traffic.Header != Header{}) {
			s.tell(true, EventForsaken, fmt.Sprintf("no pod of %s is available: stable takes its traffic until one is", name(*s.Target)))
		}
	}
	effects = append(append(effects, s.events...), s.evictions()...)
	measure, next := s.due()
	names, call := s.calls()
	calls, measures := len(names) > 0 && s.o.Answers == nil, len(measure.Names) > 0 && s.o.Looks == nil
	switch {
	case s.inspect:
		return append(effects, Inspect{})
	case calls && measures:
		return append(effects, Call{Names: names}, measure)
	case calls:
		return append(effects, Call{Names: names})
	case measures:
		return append(effects, measure)
	case !s.Settled() || some && !placed || s.Course.Canary != nil:
		effects = append(effects, WakeAt{At: s.rouse(next, call)})
	}
	return effects
}

// rouse is the earliest of the next look at the pods, the next of a metric, the next call of a Hook, and the end of a pause.
func (s *step) rouse(metric, call time.Time) time.Time {
	at := s.o.Now.Add(s.o.interval())
	times := []time.Time{metric, call}
	if order := s.ordered(); order != nil {
		times = append(times, order.Until)
	}
	if s.Course.Step < len(s.way.steps) && s.way.steps[s.Course.Step].Pause != nil {
		times = append(times, s.Course.Since.Add(s.way.steps[s.Course.Step].Pause.For))
	}
	if !s.Course.Lacks.IsZero() {
		times = append(times, s.Course.Lacks.Add(s.o.deadline()))
	}
	for _, t := range times {
		if t.After(s.o.Now) && t.Before(at) {
			at = t
		}
	}
	return at
}
