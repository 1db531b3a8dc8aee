package analysis_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

func TestStrategiesThatMakeNoSense(t *testing.T) {
	at := func(n int) *int { return &n }
	canary := func(steps ...analysis.Step) analysis.Strategy {
		return analysis.Strategy{Canary: &analysis.Canary{Steps: steps}}
	}
	for want, strategy := range map[string]analysis.Strategy{
		"exclude each other":               {Canary: &analysis.Canary{}, BlueGreen: &analysis.BlueGreen{}},
		"without a router stable":          {Canary: &analysis.Canary{Unrouted: true, DynamicStableScale: true}},
		"step 1: has 0 of weight":          canary(analysis.Step{}),
		"step 2: has 2 of weight":          canary(analysis.Step{Weight: at(1)}, analysis.Step{Weight: at(1), Replicas: at(1)}),
		"weight 101: must be a percentage": canary(analysis.Step{Weight: at(101)}),
		"weight -1: must be a percentage":  canary(analysis.Step{Weight: at(-1)}),
		"replicas 200":                     canary(analysis.Step{Replicas: at(200)}),
		"pause: must not be negative":      canary(analysis.Step{Pause: &analysis.Halt{For: -1}}),
		"give name and value":              canary(analysis.Step{Header: &analysis.Header{Name: "x"}}),
		"there are two of that name":       {Canary: &analysis.Canary{Steps: []analysis.Step{{Analysis: watching[:1]}}, Analysis: watching[:1]}},
		`metric "load": is judged in 0`:    {BlueGreen: &analysis.BlueGreen{Before: []analysis.Metric{{Name: "load"}}}},
		"batches must grow: 20% after 50%": {Rolling: &analysis.Batches{Batches: []analysis.Batch{{Percent: 50}, {Percent: 20}}}},
	} {
		if err := strategy.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", strategy, err, want)
		}
	}
	if err := (analysis.Strategy{}).Validate(); err != nil {
		t.Error(err)
	}
}

// trip is a harbour that is sailed by hand.
type trip struct {
	t        *testing.T
	strategy analysis.Strategy
	harbour
}

func depart(t *testing.T, strategy analysis.Strategy, asked string) *trip {
	t.Helper()
	if err := strategy.Validate(); err != nil {
		t.Fatal(err)
	}
	stable := bundle("good")
	return &trip{t: t, strategy: strategy, harbour: harbour{
		State: analysis.State{Phase: v1alpha1.PhaseHealthy, Stable: &stable, Target: &stable},
		Asked: asked, Stable: berth{Placed: analysis.Placed{Bundle: "digest-good"}, Wanted: berths, Updated: berths, Available: berths},
	}}
}

// sail lets d pass with pods that come, and runs the loop until it only waits.
func (r *trip) sail(d time.Duration) {
	r.t.Helper()
	r.harbour = r.back(d)
	for range 8 {
		r.Stable, r.Canary = r.Stable.ready(), r.Canary.ready()
		next, err := r.run(r.strategy, faults{})
		if err != nil {
			r.t.Fatal(err)
		}
		if r.harbour = next; r.key() == next.key() && !r.moving() {
			return
		}
	}
}

func (r *trip) moving() bool {
	_, effects := analysis.Next(r.State, r.observe(r.strategy))
	for _, effect := range effects {
		if _, waits := effect.(analysis.WakeAt); !waits {
			return true
		}
	}
	return r.Canary != r.Canary.ready() || r.Stable != r.Stable.ready()
}

// back is shift that forgets nothing.
func (h harbour) back(d time.Duration) harbour {
	c := h.State.Course
	for _, at := range []*time.Time{&c.Since, &c.Lacks, &c.Hindered} {
		if !at.IsZero() {
			*at = at.Add(-d)
		}
	}
	for _, tallies := range [][]analysis.Tally{c.Tallies, c.Background} {
		for i := range tallies {
			tallies[i].Started = tallies[i].Started.Add(-d)
			if !tallies[i].Last.IsZero() {
				tallies[i].Last = tallies[i].Last.Add(-d)
			}
		}
	}
	h.State.Course = c
	return h
}

func (r *trip) is(phase v1alpha1.RolloutPhase, stable string, weight int) {
	r.t.Helper()
	if r.State.Phase != phase || nameOf(r.State.Stable) != stable || r.Weight != weight {
		r.t.Fatalf("%s, stable is %s, the canary has %d%%; want %s, %s, %d%%\n%+v\n%+v", r.State.Phase, nameOf(r.State.Stable), r.Weight, phase, stable, weight, r.State.Course, r.State.Verdict)
	}
}

func TestCanaryStepByStep(t *testing.T) {
	at := func(n int) *int { return &n }
	r := depart(t, analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{
		{Replicas: at(25)},
		{Header: &analysis.Header{Name: "x-canary", Value: "yes"}},
		{Pause: &analysis.Halt{For: time.Minute}},
		{Header: &analysis.Header{}},
		{Weight: at(50)},
		{Pause: &analysis.Halt{}},
	}}}, "good2")
	r.sail(0)
	r.is(v1alpha1.PhaseProgressing, "good", 0)
	if r.Canary.Wanted != 1 || r.Header.Name != "x-canary" {
		t.Fatalf("%+v, %+v", r.Canary, r.Header)
	}
	r.sail(59 * time.Second)
	if r.State.Course.Step != 2 {
		t.Fatalf("the pause is over too early: step %d", r.State.Course.Step)
	}
	r.sail(time.Second)
	r.is(v1alpha1.PhaseProgressing, "good", 50)
	if r.Canary.Available != 2 || r.Header.Name != "" || r.Stable.Wanted != berths {
		t.Fatalf("%+v, %+v", r.Canary, r.Header)
	}
	// nobody approves for a week; an approval of another step or Bundle is none
	r.sail(7 * 24 * time.Hour)
	for _, other := range []analysis.Approval{{Bundle: "digest-good", Step: 5}, {Bundle: "digest-good2", Step: 4}, {Bundle: "digest-good2", Step: 5, At: epoch.Add(-30 * 24 * time.Hour)}} {
		r.Approval = &other
		r.sail(0)
		r.is(v1alpha1.PhaseProgressing, "good", 50)
	}
	r.Approval = &analysis.Approval{Bundle: "digest-good2", Step: 5, At: epoch}
	r.sail(0)
	r.is(v1alpha1.PhaseHealthy, "good2", 0)
	if r.Stable.Placed.Bundle != "digest-good2" || r.Canary != (berth{}) {
		t.Fatalf("%+v, %+v", r.Stable, r.Canary)
	}
}

func TestBlueGreenSwitchesBackAtOnce(t *testing.T) {
	strategy := analysis.Strategy{BlueGreen: &analysis.BlueGreen{Approve: true, After: watching[:1], ScaleDownDelay: time.Hour}}
	r := depart(t, strategy, "ill")
	r.sail(0)
	r.is(v1alpha1.PhaseProgressing, "good", 0)
	if r.Canary.Available != berths || r.Stable.Available != berths {
		t.Fatalf("both have to be there in full: %+v, %+v", r.Stable, r.Canary)
	}
	r.Approval = &analysis.Approval{Bundle: "digest-ill", Step: 1, At: epoch}
	r.sail(0)
	r.is(v1alpha1.PhaseFailed, "good", 0)
	if r.State.Verdict.Reason != analysis.ReasonOutOfRange || r.Stable.Available != berths {
		t.Fatalf("%+v, %+v", r.State.Verdict, r.Stable)
	}

	r = depart(t, strategy, "good2")
	r.sail(0)
	r.Approval = &analysis.Approval{Bundle: "digest-good2", Step: 1, At: epoch}
	r.sail(0)
	r.is(v1alpha1.PhaseProgressing, "good", 100)
	r.sail(59 * time.Minute)
	if r.is(v1alpha1.PhaseProgressing, "good", 100); r.Stable.Placed.Bundle != "digest-good" || r.Stable.Available != berths {
		t.Fatalf("the old version has to stay for an hour: %+v", r.Stable)
	}
	r.sail(time.Minute)
	r.is(v1alpha1.PhaseHealthy, "good2", 0)
}

// As long as no pod of a canary is there, stable answers in its place; what the canary was given comes back with its pods.
func TestNobodyIsSentWhereNoPodIs(t *testing.T) {
	for name, strategy := range map[string]analysis.Strategy{
		"canary":     {Canary: &analysis.Canary{Steps: []analysis.Step{{Header: &analysis.Header{Name: "x-canary", Value: "yes"}}, {Weight: new(50)}, {Pause: &analysis.Halt{}}}, Analysis: watching[:1]}},
		"blue-green": {BlueGreen: &analysis.BlueGreen{ScaleDownDelay: time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			r := depart(t, strategy, "good2")
			r.sail(0)
			weight, header := r.Weight, r.Header
			if weight == 0 {
				t.Fatalf("%+v", r.State.Course)
			}
			r.Canary.Available = 0
			_, effects := analysis.Next(r.State, r.observe(strategy))
			if !slices.ContainsFunc(effects, func(e analysis.Effect) bool {
				tell, is := e.(analysis.Tell)
				return is && tell.Warning && tell.Reason == analysis.EventForsaken
			}) {
				t.Errorf("nobody is told: %+v", effects)
			}
			r.drift()
			r.is(v1alpha1.PhaseProgressing, "good", 0)
			r.harbour = r.back(10 * time.Minute) // a metric is due, and there is nothing to measure
			r.drift()
			if r.Header != (analysis.Header{}) || r.State.Phase == v1alpha1.PhaseFailed || r.Weight != 0 {
				t.Errorf("%+v, %+v, %d%%", r.Header, r.State, r.Weight)
			}
			r.sail(0)
			if r.Weight != weight || r.Header != header {
				t.Errorf("with its pods came %d%% and %+v back, of %d%% and %+v", r.Weight, r.Header, weight, header)
			}
			r.Canary.Available, r.Stable.Available = 0, berths-1
			if r.drift(); r.Weight != weight {
				t.Errorf("stable is not there in full, and gets all traffic")
			}
		})
	}
}

// drift runs the loop once with the pods that there are.
func (r *trip) drift() {
	r.t.Helper()
	next, err := r.run(r.strategy, faults{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.harbour = next
}

// An outage of the metrics pauses, whatever else: the canary keeps what it has, and goes on when they are back.
func TestOutagePauses(t *testing.T) {
	at := func(n int) *int { return &n }
	r := depart(t, analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Weight: at(25)}, {Analysis: watching[:1]}}}}, "good2")
	r.Deaf = true
	r.sail(0)
	r.is(v1alpha1.PhasePaused, "good", 25)
	if v := r.State.Verdict; v.Outcome != v1alpha1.VerdictInconclusive || v.Reason != analysis.ReasonUnavailable {
		t.Fatalf("%+v", v)
	}
	for range 20 {
		r.sail(look)
		r.is(v1alpha1.PhasePaused, "good", 25)
	}
	r.Deaf = false
	r.sail(look)
	r.is(v1alpha1.PhaseHealthy, "good2", 0)
}

// The spec may want stable to serve alone meanwhile. That is no Fail: an approval starts over.
func TestRollbackWithoutData(t *testing.T) {
	at := func(n int) *int { return &n }
	m := with(watching[0], insufficient(analysis.Rollback))
	r := depart(t, analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Weight: at(25)}, {Analysis: []analysis.Metric{m}}}}}, "good2")
	r.Deaf = true
	r.sail(0)
	r.is(v1alpha1.PhasePaused, "good", 0)
	if r.State.Verdict.Outcome != v1alpha1.VerdictInconclusive || r.Canary != (berth{}) {
		t.Fatalf("%+v, %+v", r.State.Verdict, r.Canary)
	}
	r.Deaf = false
	r.sail(look)
	r.is(v1alpha1.PhasePaused, "good", 0)
	r.Approval = &analysis.Approval{Bundle: "digest-good2", Step: r.State.Course.Step, At: epoch.Add(time.Second)}
	r.sail(look)
	r.Approval = nil
	r.sail(look)
	r.is(v1alpha1.PhaseHealthy, "good2", 0)
}

// Stable that has shrunk takes back as much traffic as it has pods for.
func TestReturnToAStableThatShrank(t *testing.T) {
	at := func(n int) *int { return &n }
	r := depart(t, analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Weight: at(75)}, {Pause: &analysis.Halt{For: look}}, {Analysis: watching[:1]}}, DynamicStableScale: true}}, "ill")
	r.sail(0)
	if r.is(v1alpha1.PhaseProgressing, "good", 75); r.Stable.Wanted != 1 {
		t.Fatalf("stable has not shrunk: %+v", r.Stable)
	}
	r.harbour = r.back(look)
	for range 3 { // without new pods
		next, err := r.run(r.strategy, faults{})
		if err != nil {
			t.Fatal(err)
		}
		r.harbour = next
	}
	r.is(v1alpha1.PhaseReturning, "good", 75)
	if r.Stable.Wanted != berths {
		t.Fatalf("stable does not grow: %+v", r.Stable)
	}
	r.Stable.Available, r.Stable.Updated = 2, 2
	next, err := r.run(r.strategy, faults{})
	if err != nil {
		t.Fatal(err)
	}
	r.harbour = next
	r.is(v1alpha1.PhaseReturning, "good", 50)
	r.sail(look)
	r.is(v1alpha1.PhaseFailed, "good", 0)
}

// A strategy that changes in the middle starts over from stable; its steps are not those that were gone.
func TestStrategyChangesInTheMiddle(t *testing.T) {
	at := func(n int) *int { return &n }
	long := analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Weight: at(25)}, {Weight: at(50)}, {Pause: &analysis.Halt{}}, {Weight: at(75)}}}}
	for name, c := range map[string]struct {
		strategy analysis.Strategy
		weight   int
		phase    v1alpha1.RolloutPhase
		stable   string
	}{
		"fewer steps": {analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Weight: at(1)}, {Pause: &analysis.Halt{}}}}}, 1, v1alpha1.PhaseProgressing, "good"},
		"other steps": {analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Analysis: watching}, {Pause: &analysis.Halt{}}}}}, 0, v1alpha1.PhaseProgressing, "good"},
		"by pods":     {analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Weight: at(25)}, {Pause: &analysis.Halt{}}}, Unrouted: true}}, 0, v1alpha1.PhaseProgressing, "good"},
		"blue-green":  {analysis.Strategy{BlueGreen: &analysis.BlueGreen{Approve: true}}, 0, v1alpha1.PhaseProgressing, "good"},
		"none":        {analysis.Strategy{}, 0, v1alpha1.PhaseHealthy, "good2"},
	} {
		t.Run(name, func(t *testing.T) {
			r := depart(t, long, "good2")
			r.sail(0)
			if r.is(v1alpha1.PhaseProgressing, "good", 50); r.State.Course.Step != 2 {
				t.Fatalf("at step %d", r.State.Course.Step)
			}
			r.strategy = c.strategy
			for range 8 {
				r.sail(look)
			}
			r.is(c.phase, c.stable, c.weight)
			if c.phase == v1alpha1.PhaseProgressing && (r.Canary.Placed.Bundle != "digest-good2" || r.State.Course.Step != 1) {
				t.Errorf("the canary is %+v at step %d", r.Canary, r.State.Course.Step)
			}
		})
	}
}

// Who holds a Rollout stops its steps, and not its judge. Who aborts one takes the canary out for a while.
func TestOrders(t *testing.T) {
	at := func(n int) *int { return &n }
	strategy := analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Weight: at(25)}, {Pause: &analysis.Halt{For: look}}, {Weight: at(50)}, {Pause: &analysis.Halt{}}}, Analysis: watching[:1]}}
	begin := func(bundle string, abort bool) *trip {
		r := depart(t, strategy, bundle)
		if bundle == "good2" {
			r.sail(0)
			r.is(v1alpha1.PhaseProgressing, "good", 25)
		}
		r.harbour = r.order(abort)
		r.Order.Bundle, r.Order.Until = "digest-"+bundle, epoch.Add(time.Hour)
		return r
	}
	r := begin("good2", false)
	r.sail(time.Minute)
	r.is(v1alpha1.PhaseProgressing, "good", 25)
	r.Order.Until = epoch // it is over
	r.sail(0)
	r.is(v1alpha1.PhaseProgressing, "good", 50)

	r = begin("good2", true)
	r.sail(time.Minute)
	r.is(v1alpha1.PhasePaused, "good", 0)
	if v := r.State.Verdict; v.Outcome != v1alpha1.VerdictInconclusive || v.Reason != analysis.ReasonAborted || v.Message != "INC-1, by robin" || r.Canary != (berth{}) {
		t.Errorf("%+v, %+v", v, r.Canary)
	}
	r.Order = nil // a person has taken it back
	r.sail(0)
	r.sail(0)
	r.is(v1alpha1.PhaseProgressing, "good", 25)

	r = begin("good2", true)
	r.Order.Bundle = "digest-good" // of another version
	r.sail(time.Minute)
	r.is(v1alpha1.PhaseProgressing, "good", 50)

	strategy = analysis.Strategy{Canary: &analysis.Canary{Steps: []analysis.Step{{Analysis: watching[:1]}}}}
	r = begin("ill", false)
	r.sail(0)
	r.is(v1alpha1.PhaseFailed, "good", 0)
}
