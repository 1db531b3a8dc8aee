package analysis_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

var hooks = []analysis.Hook{
	{Name: "ask", Kind: analysis.Confirm, Interval: look},
	{Name: "load", Kind: analysis.Load, Interval: look},
	{Name: "gate", Kind: analysis.Gate, Interval: look},
}

// answers are those of the harbour: yes to go on, no to go back.
func (h harbour) answers(names []string) map[string]analysis.Answer {
	answers := map[string]analysis.Answer{}
	for _, name := range names {
		yes := name != "gate" && !h.Mute || name == "gate" && h.Recall
		answers[name] = analysis.Answer{Yes: yes, Said: map[bool]string{false: "HTTP 403"}[yes]}
	}
	return answers
}

// unconfirmed says that a state's step must not give traffic.
func unconfirmed(s analysis.State) bool {
	c := s.Course.Called
	return len(c) > 0 && !c[0].Yes && !s.Course.Promoting
}

// says makes the Hooks that are named say yes, and all others no.
func (p *passage) says(yes ...string) {
	p.answers = func(names []string) map[string]analysis.Answer {
		all := map[string]analysis.Answer{}
		for _, name := range names {
			all[name] = analysis.Answer{Yes: slices.Contains(yes, name), Said: "HTTP 403"}
		}
		return all
	}
}

// after lets time pass and the loop run until nothing changes.
func (p *passage) after(d time.Duration) {
	p.t.Helper()
	p.now = p.now.Add(d)
	p.called = nil
	for range 6 {
		p.pass(nil)
	}
}

func (p *passage) stands(phase v1alpha1.RolloutPhase, step, weight int, called string) {
	p.t.Helper()
	if p.state.Phase != phase || p.state.Course.Step != step || p.harbour.Weight != weight || strings.Join(p.called, " ") != called {
		p.t.Fatalf("%s at step %d with %d%%, called %q; want %s, %d, %d%%, %q\n%+v\n%+v",
			p.state.Phase, p.state.Course.Step, p.harbour.Weight, p.called, phase, step, weight, called, p.state.Course, p.state.Verdict)
	}
}

// newVoyage has the Hooks but for their kinds.
func newVoyage(t *testing.T, kinds ...analysis.HookKind) *passage {
	t.Helper()
	c := analysis.Canary{Steps: []analysis.Step{{Weight: new(50)}, {Analysis: []analysis.Metric{inRange}}}}
	for _, h := range hooks {
		if slices.Contains(kinds, h.Kind) {
			c.Hooks = append(c.Hooks, h)
		}
	}
	return newPassage(t, c)
}

// TestNothingGoesOnUnconfirmed: each step, and the end, is asked for, again and again, and blames nothing.
func TestNothingGoesOnUnconfirmed(t *testing.T) {
	p := newVoyage(t, analysis.Confirm)
	p.says()
	p.after(0)
	p.stands(v1alpha1.PhaseProgressing, 0, 0, "ask")
	p.after(look / 2)
	p.stands(v1alpha1.PhaseProgressing, 0, 0, "")
	for range 100 {
		p.after(look)
		p.stands(v1alpha1.PhaseProgressing, 0, 0, "ask")
	}
	if n := strings.Count(strings.Join(p.told, " "), analysis.EventWaits); n != 1 || p.harbour.Canary.Available != 2 {
		t.Errorf("told %q, %+v", p.told, p.harbour.Canary)
	}
	p.says("ask")
	p.after(look)
	p.stands(v1alpha1.PhaseProgressing, 1, 50, "ask ask") // the next step is asked for, too
	p.says()
	for range 3 {
		p.looked(inRange, p.state.Course.Tallies[0], occurrence{look: lookOf(t, "2")})
	}
	p.after(look)
	p.stands(v1alpha1.PhaseProgressing, 2, 50, "ask") // all traffic
	once := true
	p.answers = func([]string) map[string]analysis.Answer {
		defer func() { once = false }()
		return map[string]analysis.Answer{"ask": {Yes: once}}
	}
	p.after(look)
	p.stands(v1alpha1.PhaseProgressing, 3, 100, "ask ask") // and to become stable
	p.says("ask")
	p.after(look)
	p.after(look)
	if p.state.Phase != v1alpha1.PhaseHealthy || nameOf(p.state.Stable) != "ill" {
		t.Errorf("%+v", p.state)
	}
}

// TestNothingIsMeasuredWithoutLoad: a load test starts once traffic is there and confirmed, and before the first look.
func TestNothingIsMeasuredWithoutLoad(t *testing.T) {
	p := newVoyage(t, analysis.Confirm, analysis.Load)
	p.says("ask")
	p.after(0)
	p.stands(v1alpha1.PhaseProgressing, 1, 50, "ask ask load")
	if p.state.Course.Tallies != nil {
		t.Fatal("it is measured without load")
	}
	p.after(look)
	p.stands(v1alpha1.PhaseProgressing, 1, 50, "load")
	p.says("load")
	p.after(look)
	p.stands(v1alpha1.PhaseProgressing, 1, 50, "load")
	if len(p.state.Course.Tallies) != 1 {
		t.Error("it is not measured")
	}
	p.after(time.Hour)
	p.stands(v1alpha1.PhaseProgressing, 1, 50, "") // once for each step
}

// TestAGateTakesTheCanaryOut without blaming it, unless it says that it does.
func TestAGateTakesTheCanaryOut(t *testing.T) {
	p := newVoyage(t, analysis.Gate)
	p.says()
	p.after(0)
	p.stands(v1alpha1.PhaseProgressing, 1, 50, "gate")
	p.after(look)
	p.stands(v1alpha1.PhaseProgressing, 1, 50, "gate")
	p.says("gate")
	p.after(look)
	p.stands(v1alpha1.PhasePaused, 1, 0, "gate")
	if v := p.state.Verdict; v.Outcome != v1alpha1.VerdictInconclusive || v.Reason != analysis.ReasonGate || p.harbour.Canary != (berth{}) {
		t.Errorf("%+v, %+v", v, p.harbour.Canary)
	}
	p.says()
	p.after(time.Hour)
	p.stands(v1alpha1.PhasePaused, 1, 0, "") // a person has to say how it goes on
	p.approval = &analysis.Approval{Bundle: p.state.Target.Digest, Step: 1, At: p.now}
	p.after(look)
	p.after(look)
	if p.state.Phase != v1alpha1.PhaseProgressing || p.harbour.Weight != 50 {
		t.Errorf("%+v with %d%%", p.state, p.harbour.Weight)
	}

	reverting := analysis.Canary{Steps: []analysis.Step{{Weight: new(50)}, {Pause: &analysis.Halt{}}}, Hooks: []analysis.Hook{{Name: "gate", Kind: analysis.Gate, Interval: look, Reverts: true}}}
	p = newPassage(t, reverting)
	p.says("gate")
	p.after(look)
	if v := p.state.Verdict; v == nil || v.Outcome != v1alpha1.VerdictFail || v.Reason != analysis.ReasonGate || p.harbour.Weight != 0 {
		t.Errorf("%+v", v)
	}
}

func TestHooksThatMakeNoSense(t *testing.T) {
	for want, hooks := range map[string][]analysis.Hook{
		"has no name":               {{Interval: 1}},
		"interval must be positive": {{Name: "x"}},
		"only a RollbackGate":       {{Name: "x", Interval: 1, Reverts: true}},
		"two of that name":          {{Name: "x", Interval: 1}, {Name: "x", Interval: 1}},
	} {
		strategy := analysis.Strategy{Rolling: &analysis.Batches{Batches: []analysis.Batch{{Percent: 50}}, Hooks: hooks}}
		if err := strategy.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", hooks, err, want)
		}
	}
}

func TestOccasions(t *testing.T) {
	good, ill := bundle("good"), bundle("ill")
	verdict := func(outcome, reason string) *v1alpha1.Verdict {
		return &v1alpha1.Verdict{Outcome: outcome, Reason: reason}
	}
	at := func(phase v1alpha1.RolloutPhase, step int, v *v1alpha1.Verdict) analysis.State {
		return analysis.State{Phase: phase, Stable: &good, Target: &ill, Verdict: v, Course: analysis.Course{Canary: &ill, Step: step}}
	}
	before := analysis.State{Phase: v1alpha1.PhaseHealthy, Stable: &good, Target: &good}
	story := []struct {
		state analysis.State
		want  string
	}{
		{at(v1alpha1.PhaseProgressing, 0, nil), "Started"},
		{at(v1alpha1.PhaseProgressing, 0, nil), ""},
		{at(v1alpha1.PhaseProgressing, 2, nil), "Step"},
		{at(v1alpha1.PhasePaused, 2, verdict("Inconclusive", "A")), "Paused A"},
		{at(v1alpha1.PhasePaused, 2, verdict("Inconclusive", "A")), ""},
		{at(v1alpha1.PhasePaused, 2, verdict("Inconclusive", "B")), "Paused B"},
		{at(v1alpha1.PhaseProgressing, 2, nil), "Resumed"},
		{at(v1alpha1.PhaseReturning, 2, verdict("Fail", "C")), "Failed C"},
		{at(v1alpha1.PhaseFailed, 2, verdict("Fail", "C")), ""},
		{analysis.State{Phase: v1alpha1.PhaseHealthy, Stable: &good, Target: &good, Verdict: verdict("Pass", analysis.ReasonAlreadyStable)}, "Passed AlreadyStable"},
		{at(v1alpha1.PhaseFailed, 0, verdict("Fail", "D")), "Started, Failed D"},
	}
	for i, moment := range story {
		var got []string
		for _, o := range analysis.Occasions(before, moment.state, epoch) {
			got = append(got, strings.TrimSpace(o.What+" "+o.Reason))
		}
		if text := strings.Join(got, ", "); text != moment.want {
			t.Errorf("moment %d: %q, want %q", i, text, moment.want)
		}
		before = moment.state
	}
}
