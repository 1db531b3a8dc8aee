package render

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts renders. Without a registry it counts for nobody.
type metrics struct {
	total   *prometheus.CounterVec
	seconds prometheus.Histogram
}

func newMetrics(registry prometheus.Registerer) (metrics, error) {
	m := metrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_render_total", Help: "Renders by result: rendered, memo (an earlier Set was still valid) or error.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "slipway_render_seconds", Help: "Time of a render, memoised ones included.",
			Buckets: []float64{.0005, .001, .005, .01, .05, .1, .5, 1, 5, 30},
		}),
	}
	if registry == nil {
		return m, nil
	}
	var err error
	if m.total, err = registered(registry, m.total); err != nil {
		return m, err
	}
	m.seconds, err = registered(registry, m.seconds)
	return m, err
}

// registered returns the collector that counts: where server and agent are one process, they share it.
func registered[C prometheus.Collector](registry prometheus.Registerer, collector C) (C, error) {
	err := registry.Register(collector)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if earlier, same := there.ExistingCollector.(C); same {
			return earlier, nil
		}
	}
	if err != nil {
		return collector, fmt.Errorf("renderer: metrics: %w", err)
	}
	return collector, nil
}

func (m metrics) observe(result Result, err error, took time.Duration) {
	outcome := "rendered"
	switch {
	case err != nil:
		outcome = "error"
	case result.Memoised:
		outcome = "memo"
	}
	m.total.WithLabelValues(outcome).Inc()
	m.seconds.Observe(took.Seconds())
}
