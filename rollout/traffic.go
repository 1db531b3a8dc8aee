package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/rollout/analysis"
	"github.com/slipway-cd/slipway/rollout/gateway"
)

// moveTraffic points Services and Routes. While something runs beside stable, the Services of a blue-green Rollout are
// pinned to the pods of one version, and the Routes of a canary send to Services that are; else both are as in Git. What a
// strategy before has moved stays so until nothing runs beside.
func (w *arranging) moveTraffic(ctx context.Context) error {
	beside := w.Arrangement.Canary != nil || w.o.Canary.Knowledge == analysis.Present
	pinned, err := w.told(ctx, beside, w.rollout.Spec.Strategy.BlueGreen != nil, w.services)
	if err != nil {
		return err
	}
	shared, err := w.told(ctx, beside, byRoutes(w.rollout), w.routes)
	if err != nil {
		return err
	}
	if w.retires() { // Routes first: they come back also when stable's pods cannot be told
		return errors.Join(w.moveRoutes(ctx, shared), w.moveServices(ctx, pinned))
	}
	if err := w.moveServices(ctx, pinned); err != nil {
		return err
	}
	if err := w.moveRoutes(ctx, shared); err != nil {
		return err
	}
	w.failpoint(FailpointMoved, w.rollout)
	return nil
}

// told says whether objects are to tell versions apart: because the strategy does it that way, or did.
func (w *arranging) told(ctx context.Context, beside, tells bool, objects []*unstructured.Unstructured) (bool, error) {
	if !beside || tells {
		return beside, nil
	}
	for _, object := range objects {
		ref := manifests.RefOf(object)
		live, err := metadataOf(ctx, w.direct, ref, object.GroupVersionKind().Version)
		if err != nil && !apierrors.IsNotFound(err) {
			return false, errStable{err}
		}
		if live.Annotations[manifests.AnnotationTraffic] != "" {
			return true, nil
		}
	}
	return false, nil
}

func (w *arranging) moveServices(ctx context.Context, pinned bool) error {
	hash, retires := "", w.retires()
	if pinned || retires {
		name := w.rollout.Spec.WorkloadRef.Name
		if w.Weight == 100 {
			name = canaryName(w.rollout)
		}
		var err error
		if hash, err = w.hashOf(ctx, name); err != nil {
			return errStable{err}
		}
	}
	for _, service := range w.services {
		form := service.DeepCopy()
		if pinned || retires {
			pin(form, hash)
		}
		if err := w.move(ctx, form, pinned); err != nil {
			return err
		}
	}
	return nil
}

// moveRoutes lets Routes send to Services of one version each, which have to reach pods before they get traffic. Only
// traffic that a failed version has does not wait: it has come from stable a while ago, whose pods have not changed since.
func (w *arranging) moveRoutes(ctx context.Context, shared bool) error {
	live := w.o.Workload
	steady := live.Placed.Bundle == w.Stable.Digest && live.Current && live.Updated >= live.Wanted
	flees := w.Placed.Failed != "" && w.Weight == 0 && steady
	if shared && !flees {
		if err := w.placeServices(ctx, w.services, w.rollout.Spec.WorkloadRef.Name, gateway.Stable); err != nil {
			return err
		}
		if err := w.reachable(ctx); err != nil {
			return errStable{err}
		}
	}
	share := gateway.Share{Weight: w.Weight, Header: w.Header.Name, Value: w.Header.Value}
	for _, service := range w.services {
		share.Services = append(share.Services, service.GetName())
	}
	for _, form := range w.routes {
		if shared {
			var err error
			if form, err = gateway.Edit(form, share); err != nil {
				return errStable{err}
			}
		}
		if err := w.move(ctx, form, shared); err != nil {
			return err
		}
	}
	if shared && flees {
		return w.placeServices(ctx, w.services, w.rollout.Spec.WorkloadRef.Name, gateway.Stable)
	}
	return nil
}

// reachable waits until Services that had no traffic so far have pods that a gateway can have heard of. Where stable has
// none there is nothing to wait for: the version that comes in may be what helps.
func (w *arranging) reachable(ctx context.Context) error {
	before := w.o.Traffic
	shared, err := w.told(ctx, true, false, w.routes)
	if err != nil {
		return err
	}
	if w.o.Workload.Available > 0 && w.Weight < 100 && (!shared || before.Weight == 100) {
		serving, err := w.serving(ctx, w.services)
		if err != nil {
			return err
		}
		if err := w.haveEndpoints(ctx, serving, gateway.Stable); err != nil {
			return err
		}
	}
	gives := (w.Weight > 0 || w.Header != analysis.Header{}) && w.CanaryReplicas > 0 // at a size of zero there is no traffic
	if gives && before.Weight == 0 && before.Header == (analysis.Header{}) {
		return w.haveEndpoints(ctx, w.canaryServices, gateway.Canary)
	}
	return nil
}

// heard is how long a gateway may take until it knows what the API server says.
const heard = time.Second

func (w *arranging) haveEndpoints(ctx context.Context, services []*unstructured.Unstructured, name func(string) string) error {
	for _, service := range services {
		ready, changed, err := w.endpointsOf(ctx, name(service.GetName()))
		if err != nil {
			return err
		}
		if !ready {
			return fmt.Errorf("pods that the Service %s reaches: %w", name(service.GetName()), errNotYet)
		}
		if left := changed.Add(time.Second + min(heard, w.options.Drain)).Sub(w.options.Now()); left > 0 { // it is written in whole seconds
			return errDraining{left}
		}
	}
	return nil
}

// move applies what traffic goes by.
func (w *arranging) move(ctx context.Context, form *unstructured.Unstructured, tells bool) error {
	if tells {
		annotations := form.GetAnnotations()
		annotations[manifests.AnnotationTraffic] = trafficInto(w.Arrangement)
		form.SetAnnotations(annotations)
	}
	live, err := w.place(ctx, form)
	if err != nil {
		return w.blamed(err)
	}
	w.moved = append(w.moved, live)
	return nil
}

// draining is how long it is until everybody knows where traffic goes by now, which takes as long as drain.
func (w *arranging) draining(drain time.Duration) (left time.Duration) {
	now := w.options.Now()
	for _, object := range w.moved {
		for _, e := range object.GetManagedFields() {
			if e.Manager != manifests.RolloutManager || e.Operation != metav1.ManagedFieldsOperationApply || e.Time == nil {
				continue
			}
			changed := e.Time.Add(time.Second) // at the latest: the API server writes whole seconds
			left = max(left, changed.Add(drain).Sub(now))
		}
	}
	return left
}
