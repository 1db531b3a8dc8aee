package analysis

import "errors"

// ReasonBegins is that of the first Reading, with which counting begins. It is one half of a look and no answer that says
// nothing: where it counted as one, a restart of whoever remembers Readings would use up the InconclusiveLimit.
const ReasonBegins = "CountingBegins"

// Readings are what counters of both versions showed at one moment: of requests or of a histogram, the other is empty.
type Readings struct {
	Requests  Pair[Requests]
	Histogram Pair[Histogram]
}

// Since is what both versions did between before and now. With nil there was nothing before.
func (now Readings) Since(before *Readings) (look Look) {
	if before == nil {
		look.Gap = gap(ReasonBegins, "counting begins")
		return look
	}
	var canary, baseline error
	if now.Histogram.Canary == nil && now.Histogram.Baseline == nil {
		look.Errors = &Pair[Counts]{}
		look.Errors.Canary, canary = now.Requests.Canary.Since(before.Requests.Canary)
		look.Errors.Baseline, baseline = now.Requests.Baseline.Since(before.Requests.Baseline)
	} else {
		look.Latency = &Pair[Buckets]{}
		look.Latency.Canary, canary = now.Histogram.Canary.Since(before.Histogram.Canary)
		look.Latency.Baseline, baseline = now.Histogram.Baseline.Since(before.Histogram.Baseline)
	}
	// Where one says nothing the other is of no use: requests of both versions are judged together.
	if errors.As(canary, &look.Gap) || errors.As(baseline, &look.Gap) {
		look.Errors, look.Latency = nil, nil
	}
	return look
}
