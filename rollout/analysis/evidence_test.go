package analysis_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// sails lets h go on undisturbed until it is at rest, and returns the trail that it left.
func sails(t *testing.T, h harbour, strategy analysis.Strategy) harbour {
	t.Helper()
	for range 60 {
		h.Stable, h.Canary = h.Stable.ready(), h.Canary.ready()
		next, err := h.approve().run(strategy, faults{})
		if err != nil {
			t.Fatal(err)
		}
		at := next.State.Course.Trail // the clock of a harbour stands still: metrics have to become due
		verdict, history := next.State.Verdict, next.State.History
		next = next.shift(look)
		next.State.Course.Trail, next.State.Verdict, next.State.History = at, verdict, history
		if h = next; h.State.Settled() && h.State.Course.Canary == nil && nameOf(h.State.Target) == h.Asked {
			return h
		}
	}
	t.Fatalf("no end: %+v", h)
	return h
}

func trailOf(e *v1alpha1.Evidence) string {
	if e == nil {
		return "no evidence"
	}
	var all []string
	for _, p := range e.Trail {
		all = append(all, fmt.Sprintf("%s %d %d%%", p.What, p.Step, p.Weight))
	}
	return strings.Join(all, ", ")
}

func TestTrail(t *testing.T) {
	stable := bundle("good")
	start := harbour{
		State:  analysis.State{Phase: v1alpha1.PhaseHealthy, Stable: &stable, Target: &stable},
		Stable: berth{Placed: analysis.Placed{Bundle: "digest-good"}, Wanted: berths, Updated: berths, Available: berths},
	}.shift(0)
	for _, test := range []struct{ strategy, asked, want string }{
		{"canary", "good2", "Started 0 0%, Header 0 0%, Weight 1 25%, Pause 2 25%, Analysis 3 25%, Weight 4 25%, Weight 4 100%, Promoting 5 100%, Passed 5 100%"},
		{"canary", "ill", "Started 0 0%, Header 0 0%, Failed 0 0%"},
		{"canary that shrinks stable", "ill", "Started 0 0%, Weight 0 50%, Analysis 1 50%, Failed 1 50%"},
		{"blue-green", "good2", "Started 0 0%, Analysis 1 0%, Weight 2 100%, Analysis 3 100%, Pause 4 100%, Promoting 5 100%, Passed 5 100%"},
	} {
		t.Run(test.strategy+" "+test.asked, func(t *testing.T) {
			h := start
			h.Asked = test.asked
			end := sails(t, h, courses()[test.strategy])
			if got := trailOf(end.State.Verdict.Evidence); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// The trail of a version is its own, and it has an end.
func TestTrailIsBounded(t *testing.T) {
	stable, target := bundle("good"), bundle("good2")
	point := v1alpha1.TrailPoint{What: analysis.TrailStarted}
	s := analysis.State{Phase: v1alpha1.PhaseHealthy, Stable: &stable, Target: &stable, Course: analysis.Course{Canary: &target, Way: "other"}}
	for range analysis.MaxTrail {
		s.Course.Trail = append(s.Course.Trail, point)
	}
	o := analysis.Observation{
		Now: epoch, Target: &target, Deadline: deadline, Strategy: courses()["canary"], Size: berths,
		Workload: berth{Placed: analysis.Placed{Bundle: "digest-good"}, Wanted: berths, Updated: berths, Available: berths}.workload(),
		Canary:   berth{Placed: analysis.Placed{Bundle: "digest-good2"}, Wanted: 1, Updated: 1, Available: 1}.workload(),
		Traffic:  analysis.Traffic{Knowledge: analysis.Present},
	}
	next, _ := analysis.Next(s, o)
	if trail := next.Course.Trail; len(trail) != 1 || trail[0].What != analysis.TrailStarted {
		t.Errorf("another version's trail goes on: %+v", trail)
	}
	s.Course.Weight, o.Traffic.Weight = 25, 25
	next, _ = analysis.Next(s, o)
	if trail := next.Course.Trail; len(trail) != analysis.MaxTrail || trail[len(trail)-1].What != analysis.TrailLeaving {
		t.Errorf("%d points, the last %+v", len(trail), trail[len(trail)-1])
	}
}

// What is told of a test is what it was judged by.
func TestMetricEvidence(t *testing.T) {
	stable, target := bundle("good"), bundle("good2")
	test := &analysis.Test{Alpha: 0.05, Effect: 0.01, MinSamples: 100}
	strategy := analysis.Strategy{Canary: &analysis.Canary{
		Steps:    []analysis.Step{{Analysis: []analysis.Metric{{Name: "load", Range: &analysis.Range{Max: number(5)}, Interval: look, Count: 2}}}},
		Analysis: []analysis.Metric{{Name: "errors", Errors: test, Interval: look, Count: 5}},
	}}
	s := analysis.State{
		Phase: v1alpha1.PhaseProgressing, Stable: &stable, Target: &target, StartedAt: epoch.Add(-time.Minute),
		Course: analysis.Course{Canary: &target, Weight: 25, Since: epoch.Add(-time.Minute), Tallies: []analysis.Tally{{Started: epoch.Add(-time.Minute)}}, Background: []analysis.Tally{{Started: epoch.Add(-time.Minute)}}},
	}
	asked := map[string][]string{"errors": {"a  \n b" + strings.Repeat("x", 1000)}}
	if got := analysis.Metrics(s, strategy, asked); got != nil {
		t.Errorf("tallies of another strategy are read: %+v", got)
	}
	o := analysis.Observation{
		Now: epoch, Target: &target, Deadline: deadline, Strategy: strategy, Size: berths, Asked: asked,
		Workload: berth{Placed: analysis.Placed{Bundle: "digest-good"}, Wanted: berths, Updated: berths, Available: berths}.workload(),
		Canary:   berth{Placed: analysis.Placed{Bundle: "digest-good2"}, Wanted: 1, Updated: 1, Available: 1}.workload(),
		Traffic:  analysis.Traffic{Knowledge: analysis.Present, Weight: 25},
		Looks: map[string]analysis.Look{
			"load":   {At: epoch, Canary: []float64{1}},
			"errors": {At: epoch, Errors: &analysis.Pair[analysis.Counts]{Canary: analysis.Counts{Total: 1000, Bad: 300}, Baseline: analysis.Counts{Total: 1000, Bad: 1}}},
		},
	}
	s.Course.Way = wayOf(t, strategy)
	next, _ := analysis.Next(s, o)
	v := next.Verdict
	if v == nil || v.Outcome != v1alpha1.VerdictFail || v.Evidence == nil || len(v.Evidence.Metrics) != 2 {
		t.Fatalf("verdict %+v", v)
	}
	worst, other := v.Evidence.Metrics[0], v.Evidence.Metrics[1]
	if worst.Name != "errors" || worst.Outcome != v1alpha1.VerdictFail || worst.Test == nil || worst.Test.Canary.Bad != 300 || worst.Test.Effect != "0.299" ||
		worst.Limit.Alpha != "0.05" || worst.Limit.Effect != "0.01" || worst.Limit.MinSamples != 100 || !strings.HasPrefix(worst.Queries[0], "a bxxx") || len(worst.Queries[0]) > 300 {
		t.Errorf("the test: %+v, %+v", worst, worst.Test)
	}
	if other.Name != "load" || other.Outcome != "" || other.Said != "1" || other.Limit.Max != "5" || other.Passed != 1 {
		t.Errorf("the range: %+v", other)
	}
}

// wayOf is the digest that a course of strategy begins with.
func wayOf(t *testing.T, strategy analysis.Strategy) string {
	t.Helper()
	stable, target := bundle("good"), bundle("good2")
	next, _ := analysis.Next(analysis.State{Phase: v1alpha1.PhaseHealthy, Stable: &stable, Target: &stable}, analysis.Observation{
		Now: epoch, Target: &target, Strategy: strategy, Size: berths, Canary: analysis.Workload{Knowledge: analysis.Absent},
		Workload: berth{Placed: analysis.Placed{Bundle: "digest-good"}, Wanted: berths, Updated: berths, Available: berths}.workload(), Traffic: analysis.Traffic{Knowledge: analysis.Present},
	})
	if next.Course.Way == "" {
		t.Fatalf("no course: %+v", next)
	}
	return next.Course.Way
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"a\x00b\r\n c\u202ed\u2028e":           "a b c d e",
		"\xff":                                 "",
		"0123456789abc":                        "0123456...",
		"\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9": "\u00e9\u00e9\u00e9...",
	} {
		if got := analysis.Clean(text, 10); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
