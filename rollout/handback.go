package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// finish ends a Rollout that is being deleted: on stable, and with its objects in the reconciler's hands.
func (r *Reconciler) finish(ctx context.Context, key client.ObjectKey) (ctrl.Result, error) {
	var rollout v1alpha1.Rollout
	if err := r.direct.Get(ctx, key, &rollout); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if rollout.DeletionTimestamp == nil || !controllerutil.ContainsFinalizer(&rollout, Finalizer) {
		return ctrl.Result{}, nil
	}
	applied, err := r.settle(ctx, &rollout)
	if errors.Is(err, errNotYet) {
		return ctrl.Result{RequeueAfter: retryAfter(err)}, nil
	}
	if err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		r.options.Events.Eventf(&rollout, corev1.EventTypeWarning, v1alpha1.ReasonDeleting, "waits to finish on stable: %v", err)
		return ctrl.Result{}, fmt.Errorf("finishing on stable: %w", err)
	}
	for _, object := range applied {
		if err := r.handBack(ctx, rollout.Namespace, object); err != nil {
			return ctrl.Result{}, err
		}
	}
	base := rollout.DeepCopy()
	controllerutil.RemoveFinalizer(&rollout, Finalizer)
	err = r.client.Patch(ctx, &rollout, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

// settle puts stable in place if something else is, and lists what was applied.
// A workload that is gone stays gone, and a first version stays where it is. A
// stable Bundle that is not stored any more cannot be returned to, and does not hold the deletion up.
func (r *Reconciler) settle(ctx context.Context, rollout *v1alpha1.Rollout) ([]v1alpha1.AppliedObject, error) {
	stable := rollout.Status.Stable
	o, err := r.observe(ctx, r.direct, rollout)
	if no := (refused{}); err != nil && !errors.As(err, &no) && !apierrors.IsNotFound(err) {
		return nil, err
	}
	if byOrdinal(rollout) || stable != nil && !alone(rollout) {
		settle := r.settleBeside
		if byOrdinal(rollout) {
			settle = r.settleOrdinals
		}
		applied, err := settle(ctx, rollout, o)
		if apierrors.IsNotFound(err) {
			r.options.Events.Eventf(rollout, corev1.EventTypeWarning, v1alpha1.ReasonDeleting, "cannot return to stable: %v", err)
			return rollout.Status.Applied, nil
		}
		return applied, err
	}
	workload := o.Workload
	switch {
	case workload.Knowledge == analysis.Unknown:
		return nil, fmt.Errorf("the workload could not be read: %s", workload.Why)
	case workload.Knowledge == analysis.Absent, stable == nil:
		return rollout.Status.Applied, nil
	case workload.Placed.Bundle == stable.Digest && rollout.Status.AppliedBundle == stable.Digest:
		return rollout.Status.Applied, nil
	}
	applied, err := r.apply(ctx, rollout, *stable, analysis.Placed{Bundle: stable.Digest})
	if apierrors.IsNotFound(err) {
		r.options.Events.Eventf(rollout, corev1.EventTypeWarning, v1alpha1.ReasonDeleting, "cannot return to stable: %v", err)
		return rollout.Status.Applied, nil
	}
	return applied, err
}

// settleBeside finishes on stable where something ran beside it: stable comes to its size, as long as that may take, then
// all that is beside it goes, and last its Services send to all of its pods.
func (r *Reconciler) settleBeside(ctx context.Context, rollout *v1alpha1.Rollout, o analysis.Observation) ([]v1alpha1.AppliedObject, error) {
	stable, w := *rollout.Status.Stable, o.Workload
	o.Canary = observeWorkload(ctx, r.direct, rollout.Namespace, canaryName(rollout))
	if w.Knowledge == analysis.Unknown || o.Canary.Knowledge == analysis.Unknown {
		return nil, fmt.Errorf("the workloads could not be read: %s %s", w.Why, o.Canary.Why)
	}
	o.Size = w.Wanted
	if replicas, err := r.replicasOf(ctx, rollout, stable); err != nil {
		return nil, err
	} else if o.Scaled = replicas == nil; !o.Scaled {
		o.Size = *replicas
	}
	a := analysis.Arrangement{Stable: stable, Placed: analysis.Placed{Bundle: stable.Digest}, StableReplicas: o.Size}
	served := w.Placed.Bundle == stable.Digest && w.Current && w.Wanted == o.Size && w.Updated >= o.Size && w.Available >= o.Size
	late := r.options.Now().Sub(rollout.DeletionTimestamp.Time) > rollout.Spec.Strategy.ProgressDeadline()
	if o.Canary.Knowledge == analysis.Present && !served && !late {
		first := &arranging{Reconciler: r, rollout: rollout, Arrangement: a, o: o}
		if err := errors.Join(first.load(ctx), first.placeStable(ctx)); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("stable: %w", errNotYet)
	}
	applied, err := r.arrange(ctx, rollout, a, o)
	if err == nil && o.Canary.Knowledge == analysis.Present {
		err = fmt.Errorf("deployment %s: %w", canaryName(rollout), errNotYet)
	}
	return applied, err
}

// hold adds the finalizer before anything is applied.
func (r *Reconciler) hold(ctx context.Context, rollout *v1alpha1.Rollout) error {
	if controllerutil.ContainsFinalizer(rollout, Finalizer) {
		return nil
	}
	base := rollout.DeepCopy()
	controllerutil.AddFinalizer(rollout, Finalizer)
	if err := r.client.Patch(ctx, rollout, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("finalizer: %w", err)
	}
	ctrl.LoggerFrom(ctx).V(1).Info("holding until handed back")
	return nil
}

// pointer escapes a key for a JSON pointer (RFC 6901).
func pointer(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
