package rollout

import (
	"context"
	"time"

	"github.com/slipway-cd/slipway/rollout/analysis"
)

// Meter measures. An outage is an error; a number that nobody said is never given.
type Meter interface {
	// Values are the results of a query, one for each series.
	Values(ctx context.Context, query string, at time.Time) ([]float64, error)
	// Requests are raw counters of all and of bad requests.
	Requests(ctx context.Context, total, bad string, at time.Time) (analysis.Requests, error)
	// Histogram are the buckets of a histogram.
	Histogram(ctx context.Context, query string, at time.Time) (analysis.Histogram, error)
}
