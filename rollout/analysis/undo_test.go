package analysis_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// TestEveryReachableUndo walks what can happen while versions come back at once.
func TestEveryReachableUndo(t *testing.T) {
	at := func(n int) *int { return &n }
	for name, strategy := range map[string]analysis.Strategy{
		"canary":                      {Canary: &analysis.Canary{Steps: []analysis.Step{{Weight: at(50)}, {Analysis: watching[:1]}}}},
		"canary by the share of pods": {Canary: &analysis.Canary{Steps: []analysis.Step{{Weight: at(25)}, {Analysis: watching[:1]}}, Unrouted: true}},
		"blue-green":                  {BlueGreen: &analysis.BlueGreen{After: watching[:1]}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			walkFrom(t, strategy, true)
		})
	}
}

func past(name string, ago time.Duration, failed bool) v1alpha1.PastBundle {
	return v1alpha1.PastBundle{Bundle: bundle(name), Until: metav1.Time{Time: epoch.Add(-ago)}, Failed: failed}
}

// What comes back at once is what was stable lately, and never failed.
func TestUndoWindow(t *testing.T) {
	stable, asked := bundle("good"), bundle("good2")
	window := analysis.Undo{Revisions: 2, Within: time.Hour}
	for name, test := range map[string]struct {
		history  []v1alpha1.PastBundle
		window   analysis.Undo
		strategy string
		want     bool
	}{
		"the one before":         {[]v1alpha1.PastBundle{past("good2", time.Minute, false)}, window, "canary", true},
		"of blue-green":          {[]v1alpha1.PastBundle{past("good2", time.Minute, false)}, window, "blue-green", true},
		"without a window":       {[]v1alpha1.PastBundle{past("good2", time.Minute, false)}, analysis.Undo{}, "canary", false},
		"without steps":          {[]v1alpha1.PastBundle{past("good2", time.Minute, false)}, window, "", false},
		"too long ago":           {[]v1alpha1.PastBundle{past("good2", time.Hour, false)}, window, "canary", false},
		"the second":             {[]v1alpha1.PastBundle{past("a", 1, false), past("good2", time.Minute, false)}, window, "canary", true},
		"the third":              {[]v1alpha1.PastBundle{past("a", 1, false), past("b", 1, false), past("good2", time.Minute, false)}, window, "canary", false},
		"behind one that failed": {[]v1alpha1.PastBundle{past("a", 1, false), past("b", 1, true), past("good2", time.Minute, false)}, window, "canary", true},
		"that has failed":        {[]v1alpha1.PastBundle{past("good2", time.Minute, true)}, window, "canary", false},
		"never seen":             {[]v1alpha1.PastBundle{past("a", time.Minute, false)}, window, "canary", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := analysis.State{Phase: v1alpha1.PhaseHealthy, Stable: &stable, Target: &stable, History: test.history}
			o := analysis.Observation{
				Now: epoch, Target: &asked, Deadline: deadline, Strategy: courses()[test.strategy], Size: berths, Undo: test.window,
				Workload: berth{Placed: analysis.Placed{Bundle: "digest-good"}, Wanted: berths, Updated: berths, Available: berths}.workload(),
				Canary:   analysis.Workload{Knowledge: analysis.Absent}, Traffic: analysis.Traffic{Knowledge: analysis.Present},
			}
			next, effects := analysis.Next(s, o)
			if next.Undo != test.want {
				t.Errorf("undo: %v", next.Undo)
			}
			if told := strings.Contains(fmt.Sprint(effects), "without steps and analysis"); told != test.want {
				t.Errorf("told: %v", effects)
			}
			if next.Undo && strings.HasSuffix(next.Course.Way, "+undo") != test.want {
				t.Errorf("course %+v", next.Course)
			}
		})
	}
}

// The story: a version replaces another, is undone, comes back, fails, and does not come back at once any more.
func TestUndoStory(t *testing.T) {
	stable := bundle("good")
	h := harbour{
		State: analysis.State{Phase: v1alpha1.PhaseHealthy, Stable: &stable, Target: &stable}, Undoes: true,
		Stable: berth{Placed: analysis.Placed{Bundle: "digest-good"}, Wanted: berths, Updated: berths, Available: berths},
	}.shift(0)
	strategy := courses()["canary"]
	for _, leg := range []struct{ ask, trail, history string }{
		{"good2", "Started 0 0%, Header 0 0%, Weight 1 25%, Pause 2 25%, Analysis 3 25%, Weight 4 25%, Weight 4 100%, Promoting 5 100%, Passed 5 100%", "good"},
		{"good", "Started 0 0%, Weight 0 100%, Promoting 1 100%, Passed 1 100%", "good2"},
		{"ill", "Started 0 0%, Header 0 0%, Failed 0 0%", "ill! good2"},
		{"good2", "Started 0 0%, Weight 0 100%, Promoting 1 100%, Passed 1 100%", "good ill!"},
	} {
		h.Asked = leg.ask
		h = sails(t, h, strategy)
		if got := trailOf(h.State.Verdict.Evidence); got != leg.trail {
			t.Errorf("%s: got  %s\nwant %s", leg.ask, got, leg.trail)
		}
		var history []string
		for _, p := range h.State.History {
			name := p.Bundle.Name
			if p.Failed {
				name += "!"
			}
			history = append(history, name)
		}
		if got := strings.Join(history, " "); got != leg.history {
			t.Errorf("%s: history %q, want %q", leg.ask, got, leg.history)
		}
	}
}

// What is remembered has an end, and a Fail outlives what comes after it.
func TestHistoryIsBounded(t *testing.T) {
	stable, asked := bundle("good"), bundle("good2")
	s := analysis.State{Phase: v1alpha1.PhaseProgressing, Stable: &stable, Target: &asked, StartedAt: epoch}
	for i := range analysis.MaxHistory {
		s.History = append(s.History, past(fmt.Sprint(i), time.Hour, false))
	}
	s.History[3] = past("good", time.Hour, true) // it failed once, and has passed since
	o := analysis.Observation{Now: epoch, Target: &asked, Deadline: deadline, Workload: berth{Placed: analysis.Placed{Bundle: "digest-good2"}, Wanted: berths, Updated: berths, Available: berths}.workload()}
	next, _ := analysis.Next(s, o)
	if h := next.History; next.Phase != v1alpha1.PhaseHealthy || len(h) != analysis.MaxHistory || h[0].Bundle.Name != "good" || !h[0].Failed || h[0].Until.Time != epoch {
		t.Errorf("%+v", next)
	}
	status := v1alpha1.RolloutStatus{}
	next.Into(&status)
	if back := analysis.FromStatus(status); len(back.History) != analysis.MaxHistory || back.Undo {
		t.Errorf("%+v", back)
	}
}
