package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// retryAwaited is the pause while a paused Rollout waits for Kubernetes: that has taken longer than it may already.
const retryAwaited = 5 * time.Second

// awaits notes what has to come first. Time that just has to pass is nothing to decide about, and it is true then; what
// somebody else has to do has the deadline, which Next has to know of.
func (p *pass) awaits(err error) bool {
	pause := retryAfter(err)
	if errors.As(err, &errDraining{}) {
		p.soon(pause)
		return true
	}
	if p.state.Phase == v1alpha1.PhasePaused {
		pause = retryAwaited
	}
	p.soon(pause)
	missing := strings.TrimSuffix(err.Error(), ": "+errNotYet.Error())
	p.o.Refusal = &analysis.Refusal{Waits: true, Message: "it waits for what Kubernetes has not made yet: " + missing}
	return false
}

// endpointsOf is whether a Service has pods that are ready, and when that has changed last.
func (w *arranging) endpointsOf(ctx context.Context, service string) (ready bool, changed time.Time, err error) {
	var endpoints discoveryv1.EndpointSliceList
	of := client.MatchingLabels{discoveryv1.LabelServiceName: service}
	if err := w.direct.List(ctx, &endpoints, client.InNamespace(w.rollout.Namespace), of); err != nil {
		return false, changed, fmt.Errorf("endpoints of Service %s: %w", service, err)
	}
	for i := range endpoints.Items {
		ready = ready || slices.ContainsFunc(endpoints.Items[i].Endpoints, func(e discoveryv1.Endpoint) bool {
			return e.Conditions.Ready == nil || *e.Conditions.Ready
		})
		for _, e := range endpoints.Items[i].ManagedFields {
			if e.Time != nil && e.Time.After(changed) {
				changed = e.Time.Time
			}
		}
	}
	return ready, changed, nil
}

// serving are the Services that reach pods as they are: those that reach none do not begin to when they are told versions
// apart, and a newer version may be what helps.
func (w *arranging) serving(ctx context.Context, services []*unstructured.Unstructured) (serving []*unstructured.Unstructured, err error) {
	for _, service := range services {
		ready, _, err := w.endpointsOf(ctx, service.GetName())
		if err != nil {
			return nil, err
		}
		if ready {
			serving = append(serving, service)
		}
	}
	return serving, nil
}
