package rollout

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
	"github.com/slipway-cd/slipway/rollout/gateway"
)

// maxMeasuring bounds how long a pass may wait for answers: traffic must be able to return meanwhile.
const maxMeasuring = 10 * time.Second

// reading is what counters showed last. It is not written down: where it is lost, counting begins anew.
type reading struct {
	bundle string
	analysis.Readings
}

// readings are the last of all Rollouts, by Rollout and metric.
type readings struct {
	sync.Mutex
	last map[types.NamespacedName]map[string]reading
}

// swap returns what was read before now, nil when there is nothing of the same Bundle.
func (r *readings) swap(rollout types.NamespacedName, metric string, now reading) *analysis.Readings {
	r.Lock()
	defer r.Unlock()
	if r.last[rollout] == nil {
		r.last[rollout] = map[string]reading{}
	}
	before, some := r.last[rollout][metric]
	r.last[rollout][metric] = now
	if !some || before.bundle != now.bundle {
		return nil
	}
	return &before.Readings
}

func (r *readings) forget(rollout types.NamespacedName) {
	r.Lock()
	defer r.Unlock()
	delete(r.last, rollout)
}

// measure looks at metrics, all at once. recorded says that what is due stands in the status.
func (r *Reconciler) measure(ctx context.Context, rollout *v1alpha1.Rollout, due analysis.Measure, now time.Time, recorded bool) map[string]analysis.Look {
	ctx, cancel := context.WithTimeoutCause(ctx, maxMeasuring, fmt.Errorf("no answer within %s", maxMeasuring))
	defer cancel()
	checks, looks := checksOf(rollout.Spec.Strategy), map[string]analysis.Look{}
	var lock sync.Mutex
	var all sync.WaitGroup
	for i, name := range due.Names {
		check := checks[name]
		if check == nil {
			continue
		}
		all.Go(func() {
			var look analysis.Look
			var err error
			if check.Job != nil {
				look, err = r.lookByJob(ctx, rollout, check, due.Due[i], recorded)
			} else {
				look, err = r.look(ctx, rollout, check, now)
			}
			look.At = now
			if err != nil {
				look.Unavailable, look.Pending = err.Error(), false
			}
			lock.Lock()
			defer lock.Unlock()
			looks[name] = look
		})
	}
	all.Wait()
	return looks
}

// look asks for one metric. An error means that there was no answer.
func (r *Reconciler) look(ctx context.Context, rollout *v1alpha1.Rollout, check *v1alpha1.MetricCheck, now time.Time) (look analysis.Look, err error) {
	canary, stable := queriesOf(rollout, check.Interval.Duration)
	if check.HTTP != nil {
		return r.lookByHTTP(ctx, rollout, check, canary, stable)
	}
	meter, done, err := r.meterOf(ctx, rollout, check)
	if err != nil {
		return look, err
	}
	defer func() { err = done(err) }()
	switch {
	case check.Range != nil:
		look.Canary, err = meter.Values(ctx, canary.fill(check.Range.Query), now)
		return look, err
	case check.Relative != nil:
		if look.Canary, err = meter.Values(ctx, canary.fill(check.Relative.Query), now); err != nil {
			return look, err
		}
		look.Baseline, err = meter.Values(ctx, stable.fill(check.Relative.Query), now)
		return look, err
	}
	seen := reading{bundle: rollout.Spec.Bundle.Digest}
	if e := check.Errors; e != nil {
		if seen.Requests.Canary, err = meter.Requests(ctx, canary.fill(e.Total), canary.fill(e.Bad), now); err != nil {
			return look, err
		}
		if seen.Requests.Baseline, err = meter.Requests(ctx, stable.fill(e.Total), stable.fill(e.Bad), now); err != nil {
			return look, err
		}
	} else {
		if seen.Histogram.Canary, err = meter.Histogram(ctx, canary.fill(check.Latency.Buckets), now); err != nil {
			return look, err
		}
		if seen.Histogram.Baseline, err = meter.Histogram(ctx, stable.fill(check.Latency.Buckets), now); err != nil {
			return look, err
		}
	}
	return seen.Since(r.readings.swap(keyOf(rollout), check.Name, seen)), nil
}

// variables of a query, by name.
type variables map[string]string

var variable = regexp.MustCompile(`\{\{\s*([^{}]*?)\s*\}\}`)

func (v variables) fill(query string) string {
	return variable.ReplaceAllStringFunc(query, func(found string) string { return v[variable.FindStringSubmatch(found)[1]] })
}

// queriesOf are the variables of queries about the canary and about stable. Names of pods are matched whole, so that
// those of NAME do not match NAME-canary's.
func queriesOf(rollout *v1alpha1.Rollout, interval time.Duration) (canary, stable variables) {
	news, olds := podNames(rollout)
	every := fmt.Sprintf("%dms", interval.Milliseconds())
	if interval%time.Second == 0 {
		every = fmt.Sprintf("%ds", interval/time.Second)
	}
	with := func(pods, workload string, service func(string) string) variables {
		var services []string
		for _, one := range rollout.Spec.Services {
			services = append(services, service(one.Name))
		}
		return variables{
			"canary": news, "stable": olds, "pods": pods, "workload": workload,
			"service": "(" + strings.Join(services, "|") + ")", "namespace": rollout.Namespace, "interval": every,
		}
	}
	return with(news, canaryName(rollout), gateway.Canary), with(olds, rollout.Spec.WorkloadRef.Name, gateway.Stable)
}

func keyOf(rollout *v1alpha1.Rollout) types.NamespacedName {
	return types.NamespacedName{Namespace: rollout.Namespace, Name: rollout.Name}
}
