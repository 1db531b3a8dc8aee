package analysis

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Bounds of what an Evidence holds, beside those of its text.
const (
	MaxTrail   = 40
	MaxMetrics = 8
	maxQuery   = 300 // bytes
	maxSaid    = 300
)

// What a TrailPoint may be, beside the kinds of steps.
const (
	TrailStarted   = "Started"
	TrailPromoting = "Promoting"
	TrailPaused    = "Paused"
	TrailResumed   = "Resumed"
	TrailLeaving   = "Leaving"
	TrailWithdrawn = "Withdrawn"
	TrailReturning = "Returning"
	TrailPassed    = "Passed"
	TrailFailed    = "Failed"
)

// Metrics is what the metrics that are measured in s have shown so far, those that failed first, at most MaxMetrics of them.
// Asked are their queries, by name. It is empty where s does not follow strategy.
func Metrics(s State, strategy Strategy, asked map[string][]string) []v1alpha1.MetricEvidence {
	step := step{State: s, o: Observation{Strategy: strategy, Asked: asked}}
	if s.Target == nil || !step.findWay() || s.Course.Way != step.way.name {
		return nil
	}
	return step.metrics()
}

// evidence is what a closed Verdict is judged on, without the trail, which ends with it.
func (s *step) evidence() *v1alpha1.Evidence {
	e := &v1alpha1.Evidence{Started: timeInto(s.StartedAt), Metrics: s.metrics()}
	if len(e.Metrics) == 0 && !s.failed() {
		return nil
	}
	return e
}

func (s *step) metrics() (all []v1alpha1.MetricEvidence) {
	add := func(metrics []Metric, tallies []Tally) {
		for i := range min(len(metrics), len(tallies)) {
			all = append(all, metrics[i].evidence(tallies[i], s.o.Asked[metrics[i].Name]))
		}
	}
	if s.Course.Step < len(s.way.steps) {
		add(s.way.steps[s.Course.Step].Analysis, s.Course.Tallies)
	}
	add(s.way.background, s.Course.Background)
	slices.SortStableFunc(all, func(a, b v1alpha1.MetricEvidence) int { return cmp.Compare(severity(b), severity(a)) })
	return all[:min(len(all), MaxMetrics)]
}

// severity is higher for what speaks against a version.
func severity(e v1alpha1.MetricEvidence) int {
	return slices.Index([]string{v1alpha1.VerdictInconclusive, v1alpha1.VerdictFail}, e.Outcome)
}

// evidence is what m wanted and t got.
func (m Metric) evidence(t Tally, asked []string) v1alpha1.MetricEvidence {
	e := v1alpha1.MetricEvidence{
		Name: m.Name, Outcome: m.Judge(t).Outcome, DryRun: m.DryRun, Limit: m.limit(), Said: Clean(t.Said, maxSaid),
		Passed: int32(t.Passed), Failed: int32(t.Failed), Inconclusive: int32(t.Inconclusive), Errors: int32(t.Errors),
		Since: timeInto(t.Started.Truncate(time.Second)), Last: timeInto(t.Last.Truncate(time.Second)),
	}
	for _, query := range asked {
		e.Queries = append(e.Queries, Clean(query, maxQuery))
	}
	if m.test() == nil {
		return e
	}
	found := m.compared(t)
	e.Test = &v1alpha1.TestEvidence{
		EValue: decimal(1 / found.P), P: decimal(found.P), Effect: decimal(found.Effect()),
		Canary:   v1alpha1.RequestCounts{Total: found.Canary.Total, Bad: found.Canary.Bad},
		Baseline: v1alpha1.RequestCounts{Total: found.Baseline.Total, Bad: found.Baseline.Bad},
	}
	if found.Bound > 0 {
		e.Test.Bound = decimal(found.Bound)
	}
	return e
}

func (m Metric) limit() v1alpha1.MetricLimit {
	l := v1alpha1.MetricLimit{Count: int32(min(m.Count, 1<<30)), FailureLimit: int32(m.FailureLimit)}
	if m.Range != nil {
		l.Min, l.Max = bound(m.Range.Min), bound(m.Range.Max)
	}
	if m.Relative != nil {
		l.Above, l.Below = bound(m.Relative.Above), bound(m.Relative.Below)
	}
	if test := m.test(); test != nil {
		l.Alpha, l.Effect, l.MinSamples, l.MaxSamples = decimal(test.Alpha), decimal(test.Effect), test.MinSamples, test.MaxSamples
	}
	return l
}

func bound(value *float64) string {
	if value == nil {
		return ""
	}
	return decimal(*value)
}

// decimal has six digits: more say nothing about a share of requests.
func decimal(value float64) string { return strconv.FormatFloat(value, 'g', 6, 64) }

// Clean makes one line of foreign text, of at most that many bytes: without control characters, and without those that
// change how text is read but are not seen.
func Clean(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= most {
		return text
	}
	return strings.TrimSpace(strings.ToValidUTF8(text[:most-len("...")], "")) + "..."
}

// trace notes on the trail what this call of Next has changed, and closes it with a Verdict.
func (s *step) trace(before State) {
	was, is := before.Course, s.Course
	judged := s.judgedSince(before)
	about := is.Canary
	if about == nil {
		about = was.Canary
	}
	if about == nil || s.Target == nil || judged && about.Digest != s.Target.Digest {
		return
	}
	trail := was.Trail
	starts := is.Canary != nil && (was.Canary == nil || was.Canary.Digest != is.Canary.Digest || was.Way != is.Way || was.Leaving && !is.Leaving)
	if starts {
		trail = nil
	}
	if what := s.turn(before, judged, starts); what != "" {
		trail = append(slices.Clone(trail), s.point(what, before))
		if len(trail) > MaxTrail {
			trail = slices.Delete(trail, 1, 2) // the first shows where it began
		}
	}
	if is.Canary != nil {
		s.Course.Trail = trail
	}
	if judged {
		if s.Verdict.Evidence == nil {
			s.Verdict.Evidence = &v1alpha1.Evidence{Started: timeInto(s.StartedAt)}
		}
		s.Verdict.Evidence.Trail = slices.Clone(trail)
	}
}

func (s *step) point(what string, before State) v1alpha1.TrailPoint {
	at := s.Course
	if at.Canary == nil { // it has passed, and the course is over
		at = before.Course
	}
	point := v1alpha1.TrailPoint{At: metav1.Time{Time: s.now()}, What: what, Step: int32(at.Step), Weight: int32(at.Weight)}
	if at.Header != (Header{}) {
		point.Header = &v1alpha1.RolloutHeader{Name: at.Header.Name, Value: at.Header.Value}
	}
	return point
}

// judgedSince says that the Verdict was closed by this call of Next.
func (s *step) judgedSince(before State) bool {
	if s.Verdict == nil || s.Verdict.Outcome == v1alpha1.VerdictInconclusive {
		return false
	}
	return before.Verdict == nil || before.Verdict.Outcome != s.Verdict.Outcome || before.Target == nil || before.Target.Digest != s.Target.Digest
}

// turn names what has changed, the most telling first; empty for nothing.
func (s *step) turn(before State, judged, starts bool) string {
	was, is := before.Course, s.Course
	switch {
	case judged && s.failed():
		return TrailFailed
	case judged:
		return TrailPassed
	case starts:
		return TrailStarted
	case is.Canary == nil:
		return ""
	case is.Promoting && !was.Promoting:
		return TrailPromoting
	case is.Leaving && !was.Leaving:
		return TrailLeaving
	case is.Withdrawn && !was.Withdrawn:
		return TrailWithdrawn
	case s.Phase == v1alpha1.PhasePaused && before.Phase != v1alpha1.PhasePaused:
		return TrailPaused
	case s.Phase == v1alpha1.PhaseProgressing && before.Phase == v1alpha1.PhasePaused:
		return TrailResumed
	case is.Step == was.Step && is.Weight == was.Weight && is.Header == was.Header:
		return ""
	case s.leaves():
		return TrailReturning
	case is.Step < len(s.way.steps):
		return s.way.steps[is.Step].kind()
	}
	return "Analysis" // of the background, which the end waits for
}

// kind names what a step is.
func (s Step) kind() string {
	switch {
	case s.Weight != nil:
		return "Weight"
	case s.Pause != nil:
		return "Pause"
	case s.Replicas != nil:
		return "Replicas"
	case s.Header != nil:
		return "Header"
	}
	return "Analysis"
}
