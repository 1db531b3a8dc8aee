package rollout

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// strategyOf is the Rollout's strategy as a value; rolling is the zero one. An error says what a person has to change.
func strategyOf(rollout *v1alpha1.Rollout) (analysis.Strategy, error) {
	spec, s := rollout.Spec.Strategy, analysis.Strategy{}
	var err error
	switch {
	case byOrdinal(rollout):
		s.Rolling, err = ordinalsOf(spec)
	case spec.Canary != nil && len(rollout.Spec.Routes) > 0 && len(rollout.Spec.Services) == 0:
		err = errors.New("canary: spec.services is missing: Routes share out the traffic of Services")
	case spec.Canary != nil:
		s.Canary, err = canaryOf(spec.Canary, byRoutes(rollout))
	case spec.BlueGreen != nil && len(rollout.Spec.Services) == 0:
		err = errors.New("blueGreen: spec.services is missing: it moves traffic by Services")
	case spec.BlueGreen != nil:
		s.BlueGreen, err = blueGreenOf(spec.BlueGreen)
	case inBatches(spec):
		s.Rolling, err = batchesOf(spec.Rolling)
	case spec.Rolling == nil:
		err = errors.New("give one of rolling, canary and blueGreen")
	}
	for _, check := range checksOf(spec) {
		switch {
		case err != nil:
		case asksBy(check, "service") && !byRoutes(rollout):
			err = fmt.Errorf("metric %q: {{service}} needs a canary and spec.routes (else ask by {{pods}})", check.Name)
		case asksBy(check, "workload") && byOrdinal(rollout):
			err = fmt.Errorf("metric %q: {{workload}}: both versions are in the one StatefulSet (ask by {{pods}})", check.Name)
		}
	}
	if err == nil {
		err = checkWebhooks(rollout)
	}
	if err == nil {
		err = s.ShareAlpha(alphaOf(spec))
	}
	if err == nil {
		err = s.Validate()
	}
	if err != nil {
		return analysis.Strategy{}, refused{fmt.Errorf("spec.strategy: %w", err)}
	}
	return s, nil
}

// alphaOf is what all sequential tests of a Rollout share. Rollouts that were stored before there was one have the default.
func alphaOf(spec v1alpha1.Strategy) float64 {
	if alpha := float(spec.Alpha); alpha != nil {
		return *alpha
	}
	return 0.05
}

// byRoutes says that Routes share out traffic.
func byRoutes(rollout *v1alpha1.Rollout) bool {
	return rollout.Spec.Strategy.Canary != nil && len(rollout.Spec.Routes) > 0
}

func canaryOf(spec *v1alpha1.CanaryStrategy, routed bool) (*analysis.Canary, error) {
	c := &analysis.Canary{Unrouted: !routed, Hooks: hooksOf(spec.Webhooks), DynamicStableScale: spec.DynamicStableScale}
	for i, step := range spec.Steps {
		metrics, err := metricsOf(step.Analysis)
		if err != nil {
			return nil, fmt.Errorf("step %d: %w", i+1, err)
		}
		one := analysis.Step{Weight: number(step.Weight), Replicas: number(step.Replicas), Analysis: metrics}
		if step.Pause != nil {
			one.Pause = &analysis.Halt{For: step.Pause.For.Duration}
		}
		if step.Header != nil {
			one.Header = &analysis.Header{Name: step.Header.Name, Value: step.Header.Value}
		}
		c.Steps = append(c.Steps, one)
	}
	metrics, err := metricsOf(spec.Analysis)
	c.Analysis = metrics
	return c, err
}

func blueGreenOf(spec *v1alpha1.BlueGreenStrategy) (*analysis.BlueGreen, error) {
	before, err := metricsOf(spec.Before)
	after, err2 := metricsOf(spec.After)
	return &analysis.BlueGreen{Before: before, Approve: spec.Approve, After: after, ScaleDownDelay: spec.ScaleDownDelay.Duration, Hooks: hooksOf(spec.Webhooks)}, errors.Join(err, err2)
}

func metricsOf(checks []v1alpha1.MetricCheck) ([]analysis.Metric, error) {
	var metrics []analysis.Metric
	for i := range checks {
		if err := checkQueries(asked(&checks[i])); err != nil {
			return nil, fmt.Errorf("metric %q: %w", checks[i].Name, err)
		}
		metrics = append(metrics, metricOf(&checks[i]))
	}
	return metrics, nil
}

func metricOf(check *v1alpha1.MetricCheck) analysis.Metric {
	m := analysis.Metric{
		Name: check.Name, InitialDelay: check.InitialDelay.Duration, Interval: check.Interval.Duration,
		Count: int(check.Count), FailureLimit: int(check.FailureLimit), DryRun: check.DryRun, Asks: asksFor(asked(check)),
		OnInsufficientData: map[string]analysis.Insufficient{
			v1alpha1.InsufficientProceed: analysis.Proceed, v1alpha1.InsufficientRollback: analysis.Rollback,
		}[check.OnInsufficientData],
	}
	if limit := number(check.ConsecutiveErrorLimit); limit != nil {
		m.ConsecutiveErrorLimit = *limit
	}
	if limit := number(check.InconclusiveLimit); limit != nil {
		m.InconclusiveLimit = *limit
	}
	switch {
	case check.Range != nil:
		m.Range = &analysis.Range{Min: float(check.Range.Min), Max: float(check.Range.Max)}
	case check.Relative != nil:
		m.Relative = &analysis.Relative{Above: float(check.Relative.Above), Below: float(check.Relative.Below)}
	case check.Errors != nil:
		m.Errors = testOf(check.Errors.SequentialOption)
	case check.Latency != nil:
		m.Latency = testOf(check.Latency.SequentialOption)
	default:
		m.Trial = check.Job != nil
	}
	return m
}

func testOf(o v1alpha1.SequentialOption) *analysis.Test {
	t := &analysis.Test{MinSamples: o.MinSamples, MaxSamples: o.MaxSamples}
	if alpha := float(o.Alpha); alpha != nil {
		t.Alpha = *alpha
	}
	if effect := float(o.Effect); effect != nil {
		t.Effect = *effect
	}
	return t
}

func number(n *int32) *int {
	if n == nil {
		return nil
	}
	return new(int(*n))
}

func float(q *resource.Quantity) *float64 {
	if q == nil {
		return nil
	}
	return new(q.AsApproximateFloat64())
}

// checksOf are all metrics of a Rollout, by name.
func checksOf(spec v1alpha1.Strategy) map[string]*v1alpha1.MetricCheck {
	all := map[string]*v1alpha1.MetricCheck{}
	add := func(checks []v1alpha1.MetricCheck) {
		for i := range checks {
			all[checks[i].Name] = asked(&checks[i])
		}
	}
	if c := spec.Canary; c != nil {
		add(c.Analysis)
		for _, step := range c.Steps {
			add(step.Analysis)
		}
	}
	if r := spec.Rolling; r != nil {
		for _, batch := range r.Batches {
			add(batch.Analysis)
		}
	}
	if b := spec.BlueGreen; b != nil {
		add(b.Before)
		add(b.After)
	}
	return all
}
