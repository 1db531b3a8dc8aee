package rollout

import (
	"context"
	"slices"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// sizes are what Bundles say of their workload's replicas, so that a Rollout that nothing happens to is not read again.
// Losing it costs one request for each.
type sizes struct {
	sync.Mutex
	of map[types.NamespacedName][]size
}

// keptSizes is how many Bundles of a Rollout are remembered: of stable, of the target, and one more while they change.
const keptSizes = 3

type size struct {
	bundle   string
	replicas *int32 // nil: whoever scales it
}

// size is how many pods the workload should have, and whether an autoscaler says so. Git decides where it has a number; where
// it has none, what the workload has counts.
func (r *Reconciler) size(ctx context.Context, reader client.Reader, rollout *v1alpha1.Rollout, o analysis.Observation) (size int32, scaled bool, err error) {
	bundle := rollout.Spec.Bundle
	if verdict := rollout.Status.Verdict; bundle == nil || verdict != nil && verdict.Outcome == v1alpha1.VerdictFail && verdict.Bundle == bundle.Digest {
		bundle = rollout.Status.Stable
	}
	if bundle == nil {
		return o.Workload.Wanted, false, nil
	}
	replicas, err := r.replicasOf(ctx, rollout, *bundle)
	switch {
	case err != nil && sharesPods(rollout):
		return o.Workload.Wanted + o.Canary.Wanted, false, err // stable may have shrunk by as many as the canary has
	case err != nil:
		return o.Workload.Wanted, false, err
	case replicas != nil:
		return *replicas, false, nil
	}
	return r.unsized(ctx, reader, rollout, o)
}

// unsized is the size where the Bundle that decides it says none. While the number on the workload is still ours, because the
// Bundle of stable has one, nobody else has said one, and stable may be smaller than that for a canary's sake.
func (r *Reconciler) unsized(ctx context.Context, reader client.Reader, rollout *v1alpha1.Rollout, o analysis.Observation) (size int32, scaled bool, err error) {
	stable := rollout.Status.Stable
	if stable == nil || o.Workload.Knowledge != analysis.Present {
		return o.Workload.Wanted, true, nil
	}
	before, err := r.replicasOf(ctx, rollout, *stable)
	if err != nil || before == nil {
		return o.Workload.Wanted, true, err
	}
	workload := manifests.Ref{Group: appsv1.GroupName, Kind: rollout.Spec.WorkloadRef.Kind, Namespace: rollout.Namespace, Name: rollout.Spec.WorkloadRef.Name}
	live, err := metadataOf(ctx, reader, workload, "v1")
	if err != nil || !ownsReplicas(&live) {
		return o.Workload.Wanted, true, client.IgnoreNotFound(err)
	}
	return *before, false, nil
}

// refused is what a person has to change before a Rollout can go on.
type refused struct{ error }

func (r *Reconciler) replicasOf(ctx context.Context, rollout *v1alpha1.Rollout, bundle v1alpha1.BundleRef) (*int32, error) {
	if known, is := r.sizes.known(keyOf(rollout), bundle.Digest); is {
		return known.replicas, nil
	}
	objects, err := r.load(ctx, rollout.Namespace, bundle)
	if err != nil {
		return nil, err
	}
	found := size{bundle: bundle.Digest}
	for _, object := range objects {
		if err := unfit(object); err != nil {
			return nil, err
		}
		if replicas, is, _ := unstructured.NestedInt64(object.Object, "spec", "replicas"); is && isWorkload(object) {
			found.replicas = new(int32(replicas))
		}
	}
	r.sizes.note(keyOf(rollout), found)
	return found.replicas, nil
}

func (s *sizes) known(rollout types.NamespacedName, bundle string) (size, bool) {
	s.Lock()
	defer s.Unlock()
	at := slices.IndexFunc(s.of[rollout], func(known size) bool { return known.bundle == bundle })
	if at < 0 {
		return size{}, false
	}
	return s.of[rollout][at], true
}

func (s *sizes) note(rollout types.NamespacedName, found size) {
	s.Lock()
	defer s.Unlock()
	known := append(s.of[rollout], found)
	s.of[rollout] = known[max(0, len(known)-keptSizes):]
}

func (r *Reconciler) forget(rollout types.NamespacedName) {
	r.metrics.forget(rollout)
	r.readings.forget(rollout)
	r.trials.forget(rollout)
	r.outbox.forget(rollout)
	r.sizes.Lock()
	defer r.sizes.Unlock()
	delete(r.sizes.of, rollout)
}
