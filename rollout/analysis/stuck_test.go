package analysis_test

import (
	"testing"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// A canary that is well and cannot be given its traffic waits as long as pods may take, then pauses, and goes on as soon as it
// can. Its metrics are judged all the time.
func TestWhatCannotBePutInPlacePauses(t *testing.T) {
	at := func(n int) *int { return &n }
	strategy := analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Weight: at(25)}, {Pause: &analysis.Halt{}}}}}
	r := depart(t, strategy, "good2")
	goes := func(f faults) {
		t.Helper()
		r.Stable, r.Canary = r.Stable.ready(), r.Canary.ready()
		next, err := r.back(look).run(strategy, f)
		if err != nil {
			t.Fatal(err)
		}
		r.harbour = next
	}
	goes(faults{})
	for range int(deadline / look) {
		goes(faults{busy: true})
		r.is(v1alpha1.PhaseProgressing, "good", 0)
	}
	for range 5 {
		goes(faults{busy: true})
		if r.is(v1alpha1.PhasePaused, "good", 0); r.State.Verdict.Reason != analysis.ReasonNotApplied || r.State.Verdict.Outcome != v1alpha1.VerdictInconclusive {
			t.Fatalf("%+v", r.State.Verdict)
		}
	}
	goes(faults{})
	goes(faults{})
	r.is(v1alpha1.PhaseProgressing, "good", 25)
	goes(faults{})
	if !r.State.Course.Hindered.IsZero() {
		t.Errorf("hindered since %s", r.State.Course.Hindered)
	}
}

// What is missing for a canary is not said for it where its pods say what is wrong.
func TestPodsSayMoreThanWhatWaitsForThem(t *testing.T) {
	o := analysis.Observation{
		Now: epoch, Target: ref("crash"), Deadline: deadline, Size: berths,
		Strategy: analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Pause: &analysis.Halt{}}}}},
		Workload: berth{Placed: analysis.Placed{Bundle: "digest-good"}, Wanted: berths, Updated: berths, Available: berths}.workload(),
		Canary:   berth{Placed: analysis.Placed{Bundle: "digest-crash"}, Wanted: 1, Updated: 1, Available: 0}.workload(),
		Traffic:  analysis.Traffic{Knowledge: analysis.Present},
		Pods:     &analysis.Pods{New: pods("new", "crash:3"), Old: pods("old", "ready")},
		Refusal:  &analysis.Refusal{Waits: true, Message: "it waits for a Service"},
	}
	stable, target := bundle("good"), bundle("crash")
	state := analysis.State{Phase: v1alpha1.PhaseProgressing, Stable: &stable, Target: &target, StartedAt: epoch.Add(-deadline)}
	state.Course.Canary, state.Course.Lacks = &target, epoch.Add(-deadline)
	begun, _ := analysis.Next(state, o)
	state.Course.Way = begun.Course.Way
	if next, _ := analysis.Next(state, o); next.Verdict == nil || next.Verdict.Outcome != v1alpha1.VerdictFail || next.Verdict.Reason != analysis.ReasonCrashing {
		t.Errorf("%s, verdict %+v", next.Phase, next.Verdict)
	}
}
