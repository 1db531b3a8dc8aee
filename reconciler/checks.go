package reconciler

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/expression"
)

// checks hands spec.healthChecks to the judge. It reports false when one of them is no condition.
func (p *pass) checks() bool {
	compiled := map[schema.GroupKind]expression.Health{}
	for i, check := range p.app.Spec.HealthChecks {
		version, err := schema.ParseGroupVersion(check.APIVersion)
		if err != nil {
			p.stalled(v1alpha1.ReasonInvalidExpression, "spec.healthChecks[%d].apiVersion: %s", i, err)
			return false
		}
		kind := schema.GroupKind{Group: version.Group, Kind: check.Kind}
		if _, twice := compiled[kind]; twice {
			p.stalled(v1alpha1.ReasonInvalidExpression, "spec.healthChecks[%d]: %s is judged by an earlier one already", i, kind)
			return false
		}
		if compiled[kind], err = p.r.compiled.health(check); err != nil {
			p.stalled(v1alpha1.ReasonInvalidExpression, "spec.healthChecks[%d].%s", i, err)
			return false
		}
	}
	p.r.Judge.Checks(p.app.Name, compiled)
	return true
}

// health compiles a check, once: equal checks are the same value, so that the judge sees when one has changed.
func (c *compilations) health(check v1alpha1.HealthCheck) (expression.Health, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, is := c.checks[check]; is {
		return known, nil
	}
	compiled, err := expression.NewHealth(check.Current, check.InProgress, check.Failed)
	if err != nil {
		return expression.Health{}, err
	}
	if len(c.checks) >= mostCompiled {
		clear(c.checks)
	}
	c.checks[check] = compiled
	return compiled, nil
}

// mostCompiled bounds how many checks are kept; what is over that is compiled again.
const mostCompiled = 1000

// compilations remembers compiled checks.
type compilations struct {
	mu     sync.Mutex
	checks map[v1alpha1.HealthCheck]expression.Health
}
