package rollout

import (
	"fmt"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// inBatches says that a workload's pods become new in steps.
func inBatches(spec v1alpha1.Strategy) bool {
	return spec.Rolling != nil && len(spec.Rolling.Batches) > 0
}

// sharesPods says that stable shrinks as the canary grows.
func sharesPods(rollout *v1alpha1.Rollout) bool {
	spec := rollout.Spec.Strategy
	return !byOrdinal(rollout) && (inBatches(spec) || spec.Canary != nil && !byRoutes(rollout))
}

func batchesOf(spec *v1alpha1.RollingStrategy) (*analysis.Batches, error) {
	b := &analysis.Batches{Hooks: hooksOf(spec.Webhooks)}
	for i, batch := range spec.Batches {
		metrics, err := metricsOf(batch.Analysis)
		if err != nil {
			return nil, fmt.Errorf("batch %d: %w", i+1, err)
		}
		one := analysis.Batch{Percent: int(batch.Percent), Analysis: metrics}
		if batch.Pause != nil {
			one.Pause = &analysis.Halt{For: batch.Pause.For.Duration}
		}
		b.Batches = append(b.Batches, one)
	}
	return b, nil
}
