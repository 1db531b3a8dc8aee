package rollout

import (
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// Metrics is what the metrics of a Rollout that are measured now ask, what they are held against and what they have shown.
func Metrics(rollout *v1alpha1.Rollout) []v1alpha1.MetricEvidence {
	strategy, err := strategyOf(rollout)
	if err != nil {
		return nil
	}
	return analysis.Metrics(analysis.FromStatus(rollout.Status), strategy, askedOf(rollout))
}

// askedOf are the queries of all metrics as they are asked, by name: those of the new version first.
func askedOf(rollout *v1alpha1.Rollout) map[string][]string {
	asked := map[string][]string{}
	for name, check := range checksOf(rollout.Spec.Strategy) {
		queries, compares := queriesIn(check)
		canary, stable := queriesOf(rollout, check.Interval.Duration)
		for _, query := range queries {
			asked[name] = append(asked[name], canary.fill(query))
		}
		if !compares {
			continue
		}
		for _, query := range queries {
			asked[name] = append(asked[name], stable.fill(query))
		}
	}
	return asked
}
