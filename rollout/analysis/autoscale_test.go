package analysis_test

import (
	"testing"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// elastic is a workload whose size an autoscaler says, and a canary beside it.
type elastic struct {
	*testing.T
	state  analysis.State
	o      analysis.Observation
	routed bool
	kept   int // how often it was said that stable keeps its size
}

// scales is what the autoscaler does; then all comes to rest.
func (e *elastic) scales(size int32) {
	e.Helper()
	e.o.Size, e.o.Workload = size, berth{Placed: e.o.Workload.Placed, Wanted: size, Updated: size, Available: size}.workload()
	for range 20 {
		next, effects := analysis.Next(e.state, e.o)
		e.state = next
		for _, effect := range effects {
			a, is := effect.(analysis.Arrange)
			if tell, tells := effect.(analysis.Tell); tells && tell.Reason == analysis.EventKept {
				e.kept++
			}
			if !is {
				continue
			}
			if a.StableReplicas != e.o.Size {
				e.Fatalf("stable is to have %d pods while the autoscaler wants %d", a.StableReplicas, e.o.Size)
			}
			e.o.Workload.Placed, e.o.Canary = a.Placed, analysis.Workload{Knowledge: analysis.Absent}
			if a.Canary != nil {
				e.o.Canary = berth{Placed: analysis.Placed{Bundle: a.Canary.Digest}, Wanted: a.CanaryReplicas, Updated: a.CanaryReplicas, Available: a.CanaryReplicas}.workload()
			}
			if e.routed {
				e.o.Traffic.Weight = a.Weight
			}
		}
	}
}

// The autoscaler's number is stable's, whatever the strategy would make of it; the canary is a share of it.
func TestCanaryFollowsTheAutoscaler(t *testing.T) {
	at := func(n int) *int { return &n }
	steps := []analysis.Step{{Weight: at(25)}, {Pause: &analysis.Halt{}}, {Weight: at(100)}, {Pause: &analysis.Halt{}}}
	for name, strategy := range map[string]analysis.Strategy{
		"by a router":         {Canary: &analysis.Canary{Steps: steps}},
		"by pods":             {Canary: &analysis.Canary{Steps: steps, Unrouted: true}},
		"with a stable scale": {Canary: &analysis.Canary{Steps: steps, DynamicStableScale: true}},
	} {
		t.Run(name, func(t *testing.T) {
			stable := bundle("good")
			e := &elastic{T: t, routed: !strategy.Canary.Unrouted, state: analysis.State{Phase: v1alpha1.PhaseHealthy, Stable: &stable, Target: &stable}}
			e.o = analysis.Observation{
				Now: epoch, Target: ref("good2"), Deadline: deadline, Strategy: strategy, Scaled: true,
				Workload: berth{Placed: analysis.Placed{Bundle: "digest-good"}}.workload(), Canary: analysis.Workload{Knowledge: analysis.Absent},
				Traffic: analysis.Traffic{Knowledge: analysis.Present},
			}
			for _, c := range []struct{ size, canary int32 }{{4, 1}, {9, 3}, {0, 0}, {2, 1}} {
				if e.scales(c.size); e.o.Canary.Wanted != c.canary || e.state.Course.Step != 1 {
					t.Errorf("at step %d of size %d the canary has %d pods", e.state.Course.Step, c.size, e.o.Canary.Wanted)
				}
			}
			for _, size := range []int32{4, 8} {
				e.o.Approval = &analysis.Approval{Bundle: "digest-good2", Step: 1, At: epoch.Add(1)}
				if e.scales(size); e.o.Canary.Wanted != size || e.state.Course.Step != 3 {
					t.Errorf("at step %d of size %d the canary has %d pods", e.state.Course.Step, size, e.o.Canary.Wanted)
				}
			}
			e.o.Approval = &analysis.Approval{Bundle: "digest-good2", Step: 3, At: epoch.Add(1)}
			if e.scales(8); e.state.Phase != v1alpha1.PhaseHealthy || e.o.Canary.Knowledge != analysis.Absent {
				t.Errorf("%s, the canary is %+v", e.state.Phase, e.o.Canary)
			}
			if told := map[bool]int{true: 1}[strategy.Canary.DynamicStableScale]; e.kept != told {
				t.Errorf("it was said %d times that stable keeps its size", e.kept)
			}
		})
	}
}
