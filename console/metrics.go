package console

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec // by method, path and code
	reverts  *prometheus.CounterVec // by outcome
}

// newMetrics registers the collectors, unless registerer is nil.
func newMetrics(registerer prometheus.Registerer, hub *Hub, reports *reports) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_server_requests_total", Help: "Requests to the API, by path and status code.",
		}, []string{"method", "path", "code"}),
		reverts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_server_reverts_total", Help: "Revert requests by outcome: done, superseded, refused, malformed, or unknown when Git did not answer.",
		}, []string{"outcome"}),
	}
	if registerer == nil {
		return m, nil
	}
	err := errors.Join(
		registerer.Register(m.requests),
		registerer.Register(m.reverts),
		registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "slipway_server_nudge_subscribers", Help: "Streams of nudges that are open.",
		}, func() float64 { return float64(hub.Subscribers()) })),
		registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "slipway_server_reporting_clusters", Help: "Clusters of which a report is kept.",
		}, func() float64 { return float64(reports.count()) })),
	)
	if err != nil {
		return nil, fmt.Errorf("metrics of the server: %w", err)
	}
	return m, nil
}
