package rollout

import (
	"context"
	"errors"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// sizes are what Bundles say of their workload's replicas, so that a Rollout that nothing happens to is not read again.
// Losing it costs one request for each.
type sizes struct {
	sync.Mutex
	of map[types.NamespacedName]size
}

type size struct {
	bundle   string
	replicas *int32 // nil: whoever scales it
}

// size is how many pods the workload should have. A workload that shrinks for a canary needs a number that others do not
// change; else it is what an autoscaler says.
func (r *Reconciler) size(ctx context.Context, rollout *v1alpha1.Rollout, o analysis.Observation) (int32, error) {
	bundle := rollout.Spec.Bundle
	if verdict := rollout.Status.Verdict; bundle == nil || verdict != nil && verdict.Outcome == v1alpha1.VerdictFail && verdict.Bundle == bundle.Digest {
		bundle = rollout.Status.Stable
	}
	if bundle == nil {
		return o.Workload.Wanted, nil
	}
	replicas, err := r.replicasOf(ctx, rollout, *bundle)
	switch {
	case err != nil && sharesPods(rollout):
		return o.Workload.Wanted + o.Canary.Wanted, err // stable may have shrunk by as many as the canary has
	case err != nil:
		return o.Workload.Wanted, err
	case replicas != nil:
		return *replicas, nil
	case sharesPods(rollout):
		return 0, refused{errors.New("spec.replicas of the workload is missing: in batches, and without spec.routes, the canary's share is one of pods (set it, and take an autoscaler away)")}
	}
	return o.Workload.Wanted, nil
}

// refused is what a person has to change before a Rollout can go on.
type refused struct{ error }

func (r *Reconciler) replicasOf(ctx context.Context, rollout *v1alpha1.Rollout, bundle v1alpha1.BundleRef) (*int32, error) {
	r.sizes.Lock()
	known, is := r.sizes.of[keyOf(rollout)]
	r.sizes.Unlock()
	if is && known.bundle == bundle.Digest {
		return known.replicas, nil
	}
	objects, err := r.load(ctx, rollout.Namespace, bundle)
	if err != nil {
		return nil, err
	}
	found := size{bundle: bundle.Digest}
	for _, object := range objects {
		if replicas, is, _ := unstructured.NestedInt64(object.Object, "spec", "replicas"); is && object.GetKind() == "Deployment" {
			found.replicas = new(int32(replicas))
		}
	}
	r.sizes.Lock()
	defer r.sizes.Unlock()
	r.sizes.of[keyOf(rollout)] = found
	return found.replicas, nil
}

func (r *Reconciler) forget(rollout types.NamespacedName) {
	r.metrics.forget(rollout)
	r.readings.forget(rollout)
	r.sizes.Lock()
	defer r.sizes.Unlock()
	delete(r.sizes.of, rollout)
}
