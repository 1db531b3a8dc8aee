package run

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-cd/slipway/builder"
)

type loopMetrics struct {
	finished *prometheus.CounterVec   // by state
	first    prometheus.Histogram     // seconds
	jobs     *prometheus.HistogramVec // seconds, by state
	orphans  prometheus.Counter
}

// newLoopMetrics registers the collectors, unless registerer is nil.
func newLoopMetrics(registerer prometheus.Registerer, active func(builder.State) float64) (*loopMetrics, error) {
	m := &loopMetrics{
		finished: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_runs_finished_total", Help: "Runs that ended, by state.",
		}, []string{"state"}),
		first: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "slipway_run_first_step_seconds", Help: "Time from the arrival of a webhook to the start of the first step.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 16),
		}),
		jobs: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "slipway_job_duration_seconds", Help: "Time from the start of a job's last attempt to its end, by state.",
			Buckets: prometheus.ExponentialBuckets(0.1, 2, 16),
		}, []string{"state"}),
		orphans: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_jobs_orphaned_total", Help: "Jobs that were handed out again because their worker went away.",
		}),
	}
	if registerer == nil {
		return m, nil
	}
	errs := []error{registerer.Register(m.finished), registerer.Register(m.first), registerer.Register(m.jobs), registerer.Register(m.orphans)}
	for _, state := range []builder.State{builder.Pending, builder.Running} {
		errs = append(errs, registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "slipway_runs", Help: "Runs that have not ended, by state.", ConstLabels: prometheus.Labels{"state": state.String()},
		}, func() float64 { return active(state) })))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("metrics of the run loop: %w", err)
	}
	return m, nil
}

func (m *loopMetrics) ended(jobs map[string]builder.Job) {
	for _, j := range jobs {
		if !j.Started.IsZero() {
			m.jobs.WithLabelValues(j.State.String()).Observe(max(j.Finished.Sub(j.Started), 0).Seconds())
		}
	}
}

// began counts the latency of a Run whose first Job runs. Clocks of machines differ: a negative time is none.
func (m *loopMetrics) began(received time.Time, claims map[string]claim) {
	var first time.Time
	for _, c := range claims {
		if len(c.Job.Steps) > 0 && !c.Job.Steps[0].Started.IsZero() && (first.IsZero() || c.Job.Steps[0].Started.Before(first)) {
			first = c.Job.Steps[0].Started
		}
	}
	if !first.IsZero() {
		m.first.Observe(max(first.Sub(received), 0).Seconds())
	}
}

type workerMetrics struct {
	running prometheus.Gauge
	lost    prometheus.Counter
	dropped prometheus.Counter
}

func newWorkerMetrics(registerer prometheus.Registerer) (*workerMetrics, error) {
	m := &workerMetrics{
		running: prometheus.NewGauge(prometheus.GaugeOpts{Name: "slipway_worker_jobs", Help: "Jobs that this worker executes now."}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_worker_leases_lost_total", Help: "Jobs that this worker killed because it could not keep their lease.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_worker_log_lines_dropped_total", Help: "Log lines that were not stored: over a bound, or the queue was away for too long.",
		}),
	}
	if registerer == nil {
		return m, nil
	}
	if err := errors.Join(registerer.Register(m.running), registerer.Register(m.lost), registerer.Register(m.dropped)); err != nil {
		return nil, fmt.Errorf("metrics of the worker: %w", err)
	}
	return m, nil
}
