package analysis

import (
	"fmt"
	"math"
	"slices"
)

// Test is a sequential comparison of canary and baseline. It may be looked at at any time and any number of times.
type Test struct {
	// Alpha bounds the probability that a canary that is not worse by more than Effect is ever called worse, 0 < Alpha < 1.
	Alpha float64
	// Effect is the smallest difference of the rates of bad requests that matters: 0.005 is half a percentage point.
	Effect float64
	// MinSamples is how many requests of the canary a Pass needs at least.
	MinSamples int64
	// MaxSamples of the canary end the test: what has not shown by then is taken for equal. Zero is no end.
	MaxSamples int64
}

// Validate says what does not make sense.
func (t Test) Validate() error {
	switch {
	case !(t.Alpha > 0 && t.Alpha < 1):
		return fmt.Errorf("alpha %v: must lie between 0 and 1 (0.05 is usual)", t.Alpha)
	case !(t.Effect >= 0 && t.Effect < 1):
		return fmt.Errorf("minimal effect %v: must be a difference of shares, 0 to less than 1 (0.005 is half a percentage point)", t.Effect)
	case t.MinSamples < 1:
		return fmt.Errorf("minimum samples %d: must be 1 or more, for nothing can be passed unseen", t.MinSamples)
	case t.MaxSamples != 0 && t.MaxSamples < t.MinSamples:
		return fmt.Errorf("maximum samples %d: must not be less than the minimum of %d", t.MaxSamples, t.MinSamples)
	}
	return nil
}

// Evidence is all that a Test remembers of one proportion. Restarting the process that holds it loses nothing.
type Evidence struct {
	// Canary and Baseline are what was counted and judged.
	Canary   Counts `json:"canary"`
	Baseline Counts `json:"baseline"`
	// Waiting were counted while the other version had no requests; they are judged with its next ones.
	Waiting struct {
		Canary   Counts `json:"canary"`
		Baseline Counts `json:"baseline"`
	} `json:"waiting"`
	// Log is the logarithm of the e-process, Peak the highest that it has been.
	Log  float64 `json:"log"`
	Peak float64 `json:"peak"`
}

// Add takes in what both versions did since the last call: an increment that overlaps no other.
// A block is judged once both have requests; that depends on how many there are and not on how they ended.
func (e Evidence) Add(canary, baseline Counts, effect float64) Evidence {
	now := block{canary: e.Waiting.Canary.plus(canary), baseline: e.Waiting.Baseline.plus(baseline)}
	if now.canary.Total == 0 || now.baseline.Total == 0 {
		e.Waiting.Canary, e.Waiting.Baseline = now.canary, now.baseline
		return e
	}
	e.Log += logEvidence(block{e.Canary, e.Baseline}, now, effect)
	e.Peak = max(e.Peak, e.Log)
	e.Canary, e.Baseline = e.Canary.plus(now.canary), e.Baseline.plus(now.baseline)
	e.Waiting.Canary, e.Waiting.Baseline = Counts{}, Counts{}
	return e
}

// Comparison is what a Test has found so far.
type Comparison struct {
	// Worse says that the canary is worse by more than the minimal effect. Once it is, it stays so.
	Worse bool
	// Done says that MaxSamples have been seen; Enough that MinSamples have.
	Done, Enough bool
	// P is the always-valid p-value: the smallest Alpha at which the canary would be called worse.
	P float64
	// E is the e-value now: what a bet of 1 against the canary's being as good as the baseline has become.
	E float64
	// Canary and Baseline are the requests judged, at Bound.
	Canary, Baseline Counts
	// Bound is that of the latency in seconds, at which the difference is plainest; zero for a proportion.
	Bound float64
}

// Effect is the difference of the rates, as far as there are requests: positive when the canary is worse.
func (c Comparison) Effect() float64 { return c.Canary.Rate() - c.Baseline.Rate() }

func (c Comparison) String() string {
	if c.Canary.Total == 0 {
		return "no requests of both versions yet"
	}
	bad := "bad"
	if c.Bound > 0 {
		bad = fmt.Sprintf("over %gs", c.Bound)
	}
	return fmt.Sprintf("canary %d of %d %s (%.3g%%), baseline %d of %d (%.3g%%), p=%.2g", c.Canary.Bad, c.Canary.Total, bad,
		100*c.Canary.Rate(), c.Baseline.Bad, c.Baseline.Total, 100*c.Baseline.Rate(), c.P)
}

// Proportion says what e shows.
func (t Test) Proportion(e Evidence) Comparison {
	return t.comparison(e.Log, e.Peak, e.Canary, e.Baseline)
}

func (t Test) comparison(log, peak float64, canary, baseline Counts) Comparison {
	return Comparison{
		Worse: peak >= -math.Log(t.Alpha), P: math.Exp(-peak), E: math.Exp(log),
		Done: t.MaxSamples > 0 && canary.Total >= t.MaxSamples, Enough: canary.Total >= t.MinSamples,
		Canary: canary, Baseline: baseline,
	}
}

// Buckets is a latency histogram: cumulative counts by upper bound in seconds, rising, the last for all requests
// (+Inf in Prometheus). It is an increment like Counts.
type Buckets struct {
	Bounds []float64 // without +Inf
	Counts []int64   // one more than Bounds
}

// Validate says what a histogram cannot be.
func (b Buckets) Validate() error {
	switch {
	case len(b.Bounds) == 0 || len(b.Counts) != len(b.Bounds)+1:
		return fmt.Errorf("histogram with %d bounds and %d counts: +Inf or every other bucket is missing", len(b.Bounds), len(b.Counts))
	case !slices.IsSorted(b.Bounds) || len(slices.Compact(slices.Clone(b.Bounds))) != len(b.Bounds):
		return fmt.Errorf("histogram whose bounds do not rise: %v", b.Bounds)
	case !slices.IsSorted(b.Counts) || b.Counts[0] < 0:
		return fmt.Errorf("histogram whose cumulative counts fall: %v", b.Counts)
	}
	return nil
}

// slower counts the requests above bound i as bad.
func (b Buckets) slower(i int) Counts {
	total := b.Counts[len(b.Counts)-1]
	return Counts{Total: total, Bad: total - b.Counts[i]}
}

// LatencyEvidence is what a Test remembers of a histogram: one Evidence for each bound.
//
// The null hypothesis is that at no bound the share of slower requests exceeds the baseline's by more than the minimal
// effect: the canary is stochastically no slower. Under it the mean of the e-processes of all bounds is one too,
// although they are made of the same requests (V. Vovk, R. Wang: E-values: calibration, combination and applications.
// Ann. Stat. 49(3), 2021, arXiv:1912.06116), so that many bounds cost no share of alpha each.
type LatencyEvidence struct {
	Bounds []float64  `json:"bounds,omitempty"`
	At     []Evidence `json:"at,omitempty"`
	Peak   float64    `json:"peak,omitempty"` // of the mean
}

// Add takes in two valid increments. It fails, and takes in nothing, when the bounds are others than before.
func (l LatencyEvidence) Add(canary, baseline Buckets, effect float64) (LatencyEvidence, error) {
	bounds := l.Bounds
	if bounds == nil {
		bounds = slices.Clone(canary.Bounds)
	}
	if !slices.Equal(bounds, canary.Bounds) || !slices.Equal(bounds, baseline.Bounds) {
		return l, fmt.Errorf("buckets differ: %v before, canary %v, baseline %v (both versions need the same)", bounds, canary.Bounds, baseline.Bounds)
	}
	next := LatencyEvidence{Bounds: bounds, At: make([]Evidence, len(bounds)), Peak: l.Peak}
	copy(next.At, l.At)
	for i, e := range next.At {
		next.At[i] = e.Add(canary.slower(i), baseline.slower(i), effect)
	}
	next.Peak = max(next.Peak, next.log())
	return next, nil
}

// log is the logarithm of the mean of the e-processes.
func (l LatencyEvidence) log() float64 {
	if len(l.At) == 0 {
		return 0
	}
	highest, sum := math.Inf(-1), 0.0
	for _, e := range l.At {
		highest = max(highest, e.Log)
	}
	for _, e := range l.At {
		sum += math.Exp(e.Log - highest)
	}
	return highest + math.Log(sum/float64(len(l.At)))
}

// Latency says what l shows, at the bound where the difference is plainest.
func (t Test) Latency(l LatencyEvidence) Comparison {
	var plainest Evidence
	bound := 0.0
	for i, e := range l.At {
		if i == 0 || e.Log > plainest.Log {
			plainest, bound = e, l.Bounds[i]
		}
	}
	c := t.comparison(l.log(), l.Peak, plainest.Canary, plainest.Baseline)
	c.Bound = bound
	return c
}
