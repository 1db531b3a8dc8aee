package rollout

import (
	"context"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
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

// Servers are those that a Rollout names itself. secret is the content of the Secret that it names for one, nil for none;
// errors never show it.
type Servers interface {
	// Prometheus is another one than the agent's. It is used for one look; close ends it.
	Prometheus(source v1alpha1.PrometheusSource, secret map[string][]byte) (meter Meter, close func(), err error)
	// Ask makes one request and returns the answer of 2xx. Everything else is an error.
	Ask(ctx context.Context, request v1alpha1.HTTPRequest, secret map[string][]byte) ([]byte, error)
}
