package analysis

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Metric is one measurement by which a version is judged, again and again. It is judged by exactly one of Range,
// Relative, Errors, Latency and Trial.
type Metric struct {
	Name string
	// Range holds the value of a query within bounds.
	Range *Range
	// Relative holds the canary's value close to the baseline's.
	Relative *Relative
	// Errors compares shares of bad requests, Latency histograms; both sequentially.
	Errors  *Test
	Latency *Test
	// Trial has something run for each look, which ends well or not.
	Trial bool
	// Asks tells what is measured from what was before: with another one the Strategy is another, and starts over.
	Asks string

	// InitialDelay is waited before the first look, Interval between looks.
	InitialDelay, Interval time.Duration
	// Count is how many looks that showed something make a Pass, if not too many of them failed.
	Count int
	// FailureLimit is how many looks may fail. A Test has its own measure: as soon as it calls the canary worse, that is a Fail.
	FailureLimit int
	// ConsecutiveErrorLimit is how many looks in a row may get no answer.
	ConsecutiveErrorLimit int
	// InconclusiveLimit is how many looks may get an answer that says nothing.
	InconclusiveLimit int
	// OnInsufficientData is what to do when one of the last two limits is exceeded, or too few requests came.
	OnInsufficientData Insufficient
	// DryRun says to measure and to tell, and to decide nothing.
	DryRun bool
}

// Insufficient says what to do without enough data. That is never a Fail: nothing is held against the version.
type Insufficient uint8

// Pause stays where the Rollout is, Proceed goes on as if the metric had passed, Rollback sends all traffic to stable.
const (
	Pause Insufficient = iota
	Proceed
	Rollback
)

// Range is from Min to Max, both included; nil is no bound.
type Range struct{ Min, Max *float64 }

// Relative is how far the canary's value may be above and below the baseline's, as a share of it: 0.1 is ten percent.
// Nil is no bound.
type Relative struct{ Above, Below *float64 }

// Validate says what does not make sense.
func (m Metric) Validate() error {
	ways := 0
	for _, given := range []bool{m.Range != nil, m.Relative != nil, m.Errors != nil, m.Latency != nil, m.Trial} {
		if given {
			ways++
		}
	}
	var err error
	switch {
	case m.Name == "":
		err = errors.New("has no name")
	case ways != 1:
		err = fmt.Errorf("is judged in %d ways: give one of range, relative, errors, latency and job", ways)
	case m.Range != nil && m.Range.Min == nil && m.Range.Max == nil:
		err = errors.New("range without a bound: give min, max or both")
	case m.Range != nil && !(or(m.Range.Min, math.Inf(-1)) <= or(m.Range.Max, math.Inf(1))):
		err = errors.New("range: min must not be above max")
	case m.Relative != nil && m.Relative.Above == nil && m.Relative.Below == nil:
		err = errors.New("relative without a bound: give above, below or both")
	case m.Relative != nil && !(or(m.Relative.Above, 0) >= 0 && or(m.Relative.Below, 0) >= 0):
		err = errors.New("relative: above and below must not be negative")
	case m.Count < 1:
		err = fmt.Errorf("count %d: must be 1 or more, for nothing can be passed unseen", m.Count)
	case m.Interval <= 0 || m.InitialDelay < 0:
		err = errors.New("interval must be positive and initialDelay not negative")
	case m.FailureLimit < 0 || m.ConsecutiveErrorLimit < 0 || m.InconclusiveLimit < 0:
		err = errors.New("limits must not be negative")
	case m.test() != nil:
		err = m.test().Validate()
	}
	if err != nil {
		return fmt.Errorf("metric %q: %w", m.Name, err)
	}
	return nil
}

func or(value *float64, otherwise float64) float64 {
	if value == nil {
		return otherwise
	}
	return *value
}

// test is the Metric's Test, nil when it has none.
func (m Metric) test() *Test {
	if m.Errors != nil {
		return m.Errors
	}
	return m.Latency
}

// Look is the answer to one measurement.
type Look struct {
	At time.Time
	// Pending says that the answer is still to come: the look goes on, and has not happened yet.
	Pending bool
	// Unavailable is why there was no answer: an outage, a timeout, a refusal.
	Unavailable string
	// Gap is why an answer says nothing, nil if it does.
	Gap *Gap
	// Canary and Baseline are the values of a query, for Range and Relative. There should be one of each.
	Canary, Baseline []float64
	// Errors and Latency are disjoint increments, for a Test.
	Errors  *Pair[Counts]
	Latency *Pair[Buckets]
	// Trial is how one ended.
	Trial *Trial
}

// Trial is how something ended that was run to see whether the version is well.
type Trial struct {
	Well bool
	Said string // for people
}

// Pair has the same of both versions.
type Pair[T any] struct{ Canary, Baseline T }

// Tally is all that is remembered of a Metric.
type Tally struct {
	Started time.Time `json:"started"`
	Last    time.Time `json:"last"`
	Passed  int       `json:"passed,omitempty"`
	Failed  int       `json:"failed,omitempty"`
	// Inconclusive answers in all, and looks without answer in a row.
	Inconclusive int             `json:"inconclusive,omitempty"`
	Errors       int             `json:"errors,omitempty"`
	Evidence     Evidence        `json:"evidence"`
	Latency      LatencyEvidence `json:"latency"`
	// Said is what the last look showed, for people; Why the reason if it showed nothing.
	Said string `json:"said,omitempty"`
	Why  string `json:"why,omitempty"`
}

// Due is when to look next.
func (m Metric) Due(t Tally) time.Time {
	if t.Last.IsZero() {
		return t.Started.Add(m.InitialDelay)
	}
	return t.Last.Add(m.Interval)
}

// Take notes what a look showed. One that comes before it is due is not taken: looking more often must not use up
// the Count sooner. Nor is one after the Metric has passed or failed.
func (m Metric) Take(t Tally, l Look) Tally {
	if l.Pending || l.At.Before(m.Due(t)) || m.done(t) {
		return t
	}
	t.Last = l.At
	if l.Unavailable != "" {
		t.Errors++
		t.Said, t.Why = l.Unavailable, ReasonUnavailable
		return t
	}
	t.Errors = 0
	next, good, err := m.hold(t, l)
	if err != nil {
		if err.Reason != ReasonBegins {
			t.Inconclusive++
		}
		t.Said, t.Why = err.Message, err.Reason
		return t
	}
	next.Why = ""
	if good {
		next.Passed++
	} else {
		next.Failed++
	}
	return next
}

// done says that looking again would change nothing. What proceeded unseen may still be seen to fail.
func (m Metric) done(t Tally) bool {
	found := m.Judge(t)
	return found.closed() && found.Reason != ReasonProceeded
}

// hold holds an answer against what is asked for.
func (m Metric) hold(t Tally, l Look) (Tally, bool, *Gap) {
	switch {
	case l.Gap != nil:
		return t, false, l.Gap
	case m.Range != nil:
		return m.Range.hold(t, l)
	case m.Relative != nil:
		return m.Relative.hold(t, l)
	case m.Errors != nil && l.Errors != nil:
		return m.holdErrors(t, *l.Errors)
	case m.Latency != nil && l.Latency != nil:
		return m.holdLatency(t, *l.Latency)
	case m.Trial && l.Trial != nil:
		t.Said = l.Trial.Said
		return t, l.Trial.Well, nil
	}
	return t, false, gap(ReasonNoData, "nothing was measured")
}

func (m Metric) holdErrors(t Tally, now Pair[Counts]) (Tally, bool, *Gap) {
	for _, c := range []Counts{now.Canary, now.Baseline} {
		if c.Bad < 0 || c.Bad > c.Total {
			return t, false, gap(ReasonInconsistent, "%d bad requests of %d", c.Bad, c.Total)
		}
	}
	t.Evidence = t.Evidence.Add(now.Canary, now.Baseline, m.Errors.Effect)
	found := m.Errors.Proportion(t.Evidence)
	t.Said = found.String()
	return t, !found.Worse, nil
}

func (m Metric) holdLatency(t Tally, now Pair[Buckets]) (Tally, bool, *Gap) {
	if err := errors.Join(now.Canary.Validate(), now.Baseline.Validate()); err != nil {
		return t, false, gap(ReasonInconsistent, "%v", err)
	}
	evidence, err := t.Latency.Add(now.Canary, now.Baseline, m.Latency.Effect)
	if err != nil {
		return t, false, gap(ReasonInconsistent, "%v", err)
	}
	t.Latency = evidence
	found := m.Latency.Latency(evidence)
	t.Said = found.String()
	return t, !found.Worse, nil
}

func (r Range) hold(t Tally, l Look) (Tally, bool, *Gap) {
	value, err := single(l.Canary, "the query")
	if err != nil {
		return t, false, err
	}
	t.Said = fmt.Sprintf("%.4g", value)
	return t, value >= or(r.Min, math.Inf(-1)) && value <= or(r.Max, math.Inf(1)), nil
}

func (r Relative) hold(t Tally, l Look) (Tally, bool, *Gap) {
	canary, err := single(l.Canary, "the canary's query")
	if err != nil {
		return t, false, err
	}
	baseline, err := single(l.Baseline, "the baseline's query")
	if err != nil {
		return t, false, err
	}
	if baseline <= 0 {
		return t, false, gap(ReasonInconsistent, "the baseline is %.4g: nothing can be a share of it", baseline)
	}
	t.Said = fmt.Sprintf("canary %.4g, baseline %.4g (%+.1f%%)", canary, baseline, 100*(canary/baseline-1))
	return t, canary <= baseline*(1+or(r.Above, math.Inf(1))) && canary >= baseline*(1-or(r.Below, math.Inf(1))), nil
}

// single is the one number of an answer.
func single(values []float64, what string) (float64, *Gap) {
	switch {
	case len(values) == 0:
		return 0, gap(ReasonNoData, "%s has no result", what)
	case len(values) > 1:
		return 0, gap(ReasonInconsistent, "%s has %d results: it must have one", what, len(values))
	case math.IsNaN(values[0]) || math.IsInf(values[0], 0):
		return 0, gap(ReasonNotANumber, "%s is %v", what, values[0])
	}
	return values[0], nil
}
