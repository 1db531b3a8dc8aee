package rollout

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// metrics are the collectors of the loop.
type metrics struct {
	verdicts *prometheus.CounterVec
	phase    *prometheus.GaugeVec
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_rollout_verdicts_total",
			Help: "Verdicts on new versions since start, by outcome.",
		}, []string{"outcome"}),
		phase: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "slipway_rollout_phase",
			Help: "1 for the phase that a Rollout is in; other phases are absent.",
		}, []string{"namespace", "rollout", "phase"}),
	}
	for _, outcome := range []string{v1alpha1.VerdictPass, v1alpha1.VerdictFail, v1alpha1.VerdictInconclusive} {
		m.verdicts.WithLabelValues(outcome)
	}
	if registerer == nil {
		return m, nil
	}
	for _, collector := range []prometheus.Collector{m.verdicts, m.phase} {
		if err := registerer.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) inPhase(rollout types.NamespacedName, phase v1alpha1.RolloutPhase) {
	m.forget(rollout)
	if phase != "" {
		m.phase.WithLabelValues(rollout.Namespace, rollout.Name, string(phase)).Set(1)
	}
}

func (m *metrics) forget(rollout types.NamespacedName) {
	m.phase.DeletePartialMatch(prometheus.Labels{"namespace": rollout.Namespace, "rollout": rollout.Name})
}
