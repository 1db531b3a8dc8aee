package analysis_test

import (
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// occurrence is one look and how long after it is due it comes; before that it must be of no account.
type occurrence struct {
	after time.Duration
	early bool
	look  analysis.Look
}

// occurrences reads what happens, a word each: those of TestJudgeOfOneMetric, and
//
//	r:3/100+0/9,9/900   counters of bad and of all requests as they stand, of the canary's pods and of stable's; a pod
//	                    that is not there is _, counters of bad requests that are not there x, and r:- is no series
//	restart             the agent, which remembers no counters
//	+5m                 so much later than due comes the next look
//	early:9             that look before it is due
func occurrences(t *testing.T, looks string) (all []occurrence) {
	t.Helper()
	var before *analysis.Readings
	var after time.Duration
	for word := range strings.FieldsSeq(looks) {
		counters, counted := strings.CutPrefix(word, "r:")
		early, isEarly := strings.CutPrefix(word, "early:")
		switch {
		case word == "restart":
			before = nil
		case word[0] == '+':
			d, err := time.ParseDuration(word[1:])
			if err != nil {
				t.Fatal(err)
			}
			after = d
		case counted:
			now := readingsOf(t, counters)
			all = append(all, occurrence{after: after, look: now.Since(before)})
			before, after = &now, 0
		case isEarly:
			all = append(all, occurrence{early: true, look: lookOf(t, early)})
		default:
			all = append(all, occurrence{after: after, look: lookOf(t, word)})
			after = 0
		}
	}
	return all
}

func readingsOf(t *testing.T, word string) (now analysis.Readings) {
	t.Helper()
	if word == "-" {
		return now
	}
	canary, stable, _ := strings.Cut(word, ",")
	now.Requests.Canary, now.Requests.Baseline = requestsOf(t, canary), requestsOf(t, stable)
	return now
}

func requestsOf(t *testing.T, pods string) analysis.Requests {
	t.Helper()
	requests := analysis.Requests{Total: analysis.Reading{}, Bad: analysis.Reading{}}
	for i, pod := range strings.Split(pods, "+") {
		name := string(rune('a' + i))
		bad, total, _ := strings.Cut(pod, "/")
		switch {
		case pod == "_":
		case bad == "x":
			requests.Total[name] = numberOf(t, total)
		default:
			requests.Total[name], requests.Bad[name] = numberOf(t, total), numberOf(t, bad)
		}
	}
	return requests
}

// remembered is what a metric alone makes of what happens.
func remembered(m analysis.Metric, happens []occurrence) analysis.Finding {
	tally := analysis.Tally{Started: epoch}
	for _, one := range happens {
		tally = m.Take(tally, one.at(m.Due(tally)))
	}
	return analysis.JudgeMetrics([]analysis.Metric{m}, []analysis.Tally{tally})
}

func (o occurrence) at(due time.Time) analysis.Look {
	o.look.At = due.Add(o.after)
	if o.early {
		o.look.At = due.Add(-time.Second)
	}
	return o.look
}

// judgedInAStep is what a Rollout finds whose canary has half of the traffic while a step measures m.
func judgedInAStep(t *testing.T, m analysis.Metric, happens []occurrence) string {
	t.Helper()
	p := newPassage(t, analysis.Canary{Steps: []analysis.Step{{Weight: new(50)}, {Analysis: []analysis.Metric{m}}, {Pause: &analysis.Halt{}}}})
	last := analysis.Tally{Started: epoch}
	for _, one := range happens {
		if p.state.Course.Tallies == nil || p.state.Course.Step != 1 {
			break // it is decided
		}
		last = p.state.Course.Tallies[0]
		look := p.looked(m, last, one)
		last = m.Take(last, look)
	}
	if p.state.Course.Step == 2 && p.state.Phase == v1alpha1.PhaseProgressing {
		return "Pass " + analysis.JudgeMetrics([]analysis.Metric{m}, []analysis.Tally{last}).Reason
	}
	return p.found()
}

// judgedFromTheBackground is the same where m watches from the first traffic on while a step waits for a person.
func judgedFromTheBackground(t *testing.T, m analysis.Metric, happens []occurrence) string {
	t.Helper()
	p := newPassage(t, analysis.Canary{Steps: []analysis.Step{{Weight: new(50)}, {Pause: &analysis.Halt{}}}, Analysis: []analysis.Metric{m}})
	for _, one := range happens {
		if len(p.state.Course.Background) == 0 {
			break
		}
		p.looked(m, p.state.Course.Background[0], one)
	}
	return p.found()
}

// passage is a Rollout in a cluster that does at once what it is told.
type passage struct {
	t        *testing.T
	strategy analysis.Strategy
	state    analysis.State
	harbour  harbour
	now      time.Time
	// answers are those of Hooks; called and told are all so far.
	answers      func(names []string) map[string]analysis.Answer
	called, told []string
	order        *analysis.Order
	approval     *analysis.Approval
}

func newPassage(t *testing.T, canary analysis.Canary) *passage {
	t.Helper()
	stable := bundle("good")
	p := &passage{t: t, strategy: analysis.Strategy{Canary: &canary}, now: epoch, harbour: harbour{
		Asked: "ill", Stable: berth{Placed: analysis.Placed{Bundle: "digest-good"}, Wanted: berths, Updated: berths, Available: berths},
	}}
	p.state = analysis.State{Phase: v1alpha1.PhaseHealthy, Stable: &stable, Target: &stable}
	if err := p.strategy.Validate(); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		p.pass(nil)
	}
	return p
}

// pass is one pass of the loop. It fails when a metric is asked for that has no look.
func (p *passage) pass(looks map[string]analysis.Look) {
	p.t.Helper()
	p.harbour.Stable, p.harbour.Canary = p.harbour.Stable.ready(), p.harbour.Canary.ready()
	o := p.harbour.observe(p.strategy)
	o.Now, o.Order, o.Approval = p.now, p.order, p.approval
	for again := true; again; {
		next, effects := analysis.Next(p.state, o)
		p.state, again = next, false
		for _, effect := range effects {
			switch e := effect.(type) {
			case analysis.Arrange:
				p.harbour.arrange(e.Arrangement, p.strategy)
			case analysis.Measure:
				if looks != nil {
					o.Looks, again = looks, true
				}
			case analysis.Call:
				p.called = append(p.called, e.Names...)
				if p.answers != nil {
					o.Answers, again = p.answers(e.Names), true
				}
			case analysis.Tell:
				p.told = append(p.told, e.Reason)
			}
		}
	}
}

// looked lets one look at m happen. One that is early is not asked for.
func (p *passage) looked(m analysis.Metric, t analysis.Tally, one occurrence) analysis.Look {
	p.t.Helper()
	look := one.at(m.Due(t))
	p.now = look.At
	p.pass(map[string]analysis.Look{m.Name: look})
	p.pass(nil) // what follows is put in place
	return look
}

// found is what stands in the Verdict; while there is none it is open. It holds what each outcome promises.
func (p *passage) found() string {
	p.t.Helper()
	v := p.state.Verdict
	if v == nil {
		if p.harbour.Weight != 50 {
			p.t.Errorf("without a Verdict the canary has %d%% of traffic", p.harbour.Weight)
		}
		return "open"
	}
	back := p.harbour.Weight == 0
	switch {
	case v.Outcome == v1alpha1.VerdictFail && !back:
		p.t.Errorf("a Fail leaves %d%% of traffic", p.harbour.Weight)
	case v.Outcome == v1alpha1.VerdictInconclusive && p.state.Phase != v1alpha1.PhasePaused:
		p.t.Errorf("Inconclusive, and %s", p.state.Phase)
	}
	if v.Outcome != v1alpha1.VerdictInconclusive {
		return v.Outcome + " " + v.Reason
	}
	return v.Outcome + " " + v.Reason + " " + map[bool]string{true: "rollback", false: "pause"}[back]
}

// TestABeginningMetricHasNoOutage: a metric that begins after others were measured was not asked for with them.
func TestABeginningMetricHasNoOutage(t *testing.T) {
	canary := analysis.Canary{Steps: []analysis.Step{{Replicas: new(50)}, {Analysis: []analysis.Metric{of(inRange, func(m *analysis.Metric) { m.Count = 1 })}}, {Weight: new(50)}, {Pause: &analysis.Halt{}}}, Analysis: []analysis.Metric{of(errs)}}
	p := newPassage(t, canary)
	o := p.harbour.observe(p.strategy)
	o.Now = p.now
	o.Looks = map[string]analysis.Look{inRange.Name: {At: p.now, Canary: []float64{2}}}
	p.state, _ = analysis.Next(p.state, o)
	if p.state.Course.Step != 2 || len(p.state.Course.Background) != 1 {
		t.Fatalf("%+v", p.state.Course)
	}
	o.Refusal = &analysis.Refusal{Message: "busy"} // so that it is asked again, with the same looks
	if p.state, _ = analysis.Next(p.state, o); p.state.Course.Background[0].Errors != 0 || p.state.Phase != v1alpha1.PhaseProgressing {
		t.Errorf("%s: %+v", p.state.Phase, p.state.Course.Background)
	}
}
