package analysis

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// Reading is what raw counters showed at one moment, by series (its labels). Sums over series and rates are no Readings:
// in a sum the restart of one pod cannot be seen.
//
// Readings need not be remembered: where one got lost, the next is where counting begins anew.
type Reading map[string]float64

// Gap is why nothing can be said about a stretch of time. It is never the version's fault, and never a good sign.
type Gap struct {
	Reason  string
	Message string
}

func (g *Gap) Error() string { return g.Message }

func gap(reason, format string, args ...any) *Gap {
	return &Gap{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Reasons of Gaps.
const (
	ReasonNoData       = "NoData"       // a series is missing, or there was no Reading before
	ReasonReset        = "CounterReset" // a pod or what measures it was started anew
	ReasonNotANumber   = "NotANumber"   // NaN, infinite, negative or no whole number of requests
	ReasonInconsistent = "Inconsistent" // numbers that cannot be true together
)

// Requests are the counters of one version: of all requests and of the bad ones among them.
type Requests struct{ Total, Bad Reading }

// Since is what was counted between before and now. A series counts from the second Reading that has it, so that what it
// counted earlier is not taken for new. An error is a *Gap.
//
// That there is no series of bad requests at all is not taken for "none": a query that does not match anything looks the
// same. `sum by (pod) (bad) or 0 * sum by (pod) (all)` says the zero.
func (now Requests) Since(before Requests) (Counts, error) {
	total, err := increase(before.Total, now.Total, "requests")
	if err != nil {
		return Counts{}, err
	}
	bad, err := increase(before.Bad, now.Bad, "bad requests")
	if err != nil {
		return Counts{}, err
	}
	if bad > total {
		return Counts{}, gap(ReasonInconsistent, "%d bad requests of %d", bad, total)
	}
	return Counts{Total: total, Bad: bad}, nil
}

func increase(before, now Reading, what string) (int64, error) {
	if len(now) == 0 {
		return 0, gap(ReasonNoData, "no series of %s", what)
	}
	sum, known := 0.0, false
	for _, series := range slices.Sorted(maps.Keys(now)) {
		value := now[series]
		if err := countable(series, value); err != nil {
			return 0, err
		}
		last, seen := before[series]
		switch {
		case !seen:
			continue
		case countable(series, last) != nil:
			return 0, countable(series, last)
		case value < last:
			return 0, gap(ReasonReset, "counter %s went from %v to %v", series, last, value)
		}
		known = true
		sum += value - last
	}
	for _, series := range slices.Sorted(maps.Keys(before)) {
		if _, there := now[series]; !there {
			return 0, gap(ReasonNoData, "series %s is gone", series)
		}
	}
	if !known {
		return 0, gap(ReasonNoData, "no series of %s has been seen before", what)
	}
	return int64(sum), nil
}

// maxCount is the highest count of which a float64 still knows the next.
const maxCount = 1 << 53

func countable(series string, value float64) error {
	if !(value >= 0 && value <= maxCount) || value != math.Trunc(value) {
		return gap(ReasonNotANumber, "series %s is %v, which is no number of requests", series, value)
	}
	return nil
}

// Histogram is what the buckets of a latency histogram showed at one moment: by series without its le, then by upper
// bound in seconds, with +Inf.
type Histogram map[string]map[float64]float64

// Since is what was counted between before and now, as with Requests.
func (now Histogram) Since(before Histogram) (Buckets, error) {
	if len(now) == 0 {
		return Buckets{}, gap(ReasonNoData, "no series of the histogram")
	}
	for _, series := range slices.Sorted(maps.Keys(before)) {
		if _, there := now[series]; !there {
			return Buckets{}, gap(ReasonNoData, "histogram %s is gone", series)
		}
	}
	var sum Buckets
	for _, series := range slices.Sorted(maps.Keys(now)) {
		last, seen := before[series]
		if !seen {
			continue
		}
		one, err := bucketsSince(series, last, now[series])
		if err != nil {
			return Buckets{}, err
		}
		switch {
		case sum.Bounds == nil:
			sum = one
		case !slices.Equal(sum.Bounds, one.Bounds):
			return Buckets{}, gap(ReasonInconsistent, "histogram %s has the bounds %v, others %v", series, one.Bounds, sum.Bounds)
		default:
			for i, n := range one.Counts {
				sum.Counts[i] += n
			}
		}
	}
	if sum.Bounds == nil {
		return Buckets{}, gap(ReasonNoData, "no series of the histogram has been seen before")
	}
	return sum, nil
}

func bucketsSince(series string, before, now map[float64]float64) (Buckets, error) {
	var b Buckets
	for _, bound := range slices.Sorted(maps.Keys(now)) {
		name := fmt.Sprintf("%s le=%g", series, bound)
		last, seen := before[bound]
		if math.IsNaN(bound) || !seen || len(before) != len(now) {
			return Buckets{}, gap(ReasonInconsistent, "histogram %s has other buckets than before", series)
		}
		n, err := increase(Reading{name: last}, Reading{name: now[bound]}, "requests")
		if err != nil {
			return Buckets{}, err
		}
		if !math.IsInf(bound, 1) {
			b.Bounds = append(b.Bounds, bound)
		}
		b.Counts = append(b.Counts, n)
	}
	if err := b.Validate(); err != nil {
		return Buckets{}, gap(ReasonInconsistent, "%s: %v", series, err)
	}
	return b, nil
}
