package reconciler

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// WithFinalizer gives an Application that comes from Git the finalizer that it gets anyway, so that it takes no request of
// its own. It does so only where Applications of this agent are: elsewhere nobody would ever take it away. Other objects, and
// those that have it, are returned as they are.
func WithFinalizer(object *unstructured.Unstructured, namespace string) *unstructured.Unstructured {
	ref := manifests.RefOf(object)
	if ref.Group != v1alpha1.Group || ref.Kind != "Application" || ref.Namespace != namespace || slices.Contains(object.GetFinalizers(), Finalizer) {
		return object
	}
	object = object.DeepCopy()
	object.SetFinalizers(append(object.GetFinalizers(), Finalizer))
	return object
}

// finalize deletes or orphans what a deleted Application owns, then lets it go.
func (r *ApplicationReconciler) finalize(ctx context.Context, app *v1alpha1.Application) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(app, Finalizer) {
		return ctrl.Result{}, nil
	}
	p := &pass{r: r, app: app, before: app.DeepCopy()}
	if app.Spec.DeletionPolicy != v1alpha1.DeletionOrphan && (app.Spec.Prune == nil || *app.Spec.Prune) {
		done, err := p.tearDown(ctx)
		if err != nil || !done {
			return ctrl.Result{RequeueAfter: p.retry()}, err
		}
	}
	if err := p.unpin(ctx); err != nil {
		return ctrl.Result{}, err
	}
	controllerutil.RemoveFinalizer(app, Finalizer)
	if err := r.Client.Patch(ctx, app, client.MergeFrom(p.before)); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(fmt.Errorf("application %s: finalizer cannot be removed: %w", app.Name, err))
	}
	r.forget(app.Name)
	return ctrl.Result{}, nil
}

// tearDown deletes what is owned and reports whether all of it is gone.
func (p *pass) tearDown(ctx context.Context) (bool, error) {
	owned, err := p.loadInventory(ctx)
	if err != nil {
		return false, err
	}
	if len(owned) == 0 {
		return true, nil
	}
	p.r.Cluster.Track(p.app.Name, owned)
	in := plan.In{Seen: p.r.Cluster.Observe(ctx, owned.Refs()), Owned: owned}
	if err := p.handovers(ctx, &in); err != nil {
		return false, err
	}
	defer p.tellOwners(in)
	todo, err := plan.Teardown(p.app.Name, in.Seen, owned, in.Claimed)
	if err != nil {
		return false, fmt.Errorf("application %s: %w", p.app.Name, err)
	}
	result := Applied{}
	if !todo.Empty() {
		if result, err = p.r.Cluster.Apply(ctx, todo); err != nil {
			p.event(corev1.EventTypeWarning, v1alpha1.ReasonDeleting, "%s", err)
			return false, fmt.Errorf("application %s: %w", p.app.Name, err)
		}
	}
	left := todo.Inventory.Merge(result.Entries, result.Gone)
	if err := p.saveInventory(ctx, left); err != nil {
		return false, err
	}
	return todo.Empty() || len(left) == 0, nil
}

func (p *pass) unpin(ctx context.Context) error {
	if p.app.Spec.SourceRef.IsArtifact() {
		return p.unpinArtifact(ctx)
	}
	key := types.NamespacedName{Namespace: p.app.Namespace, Name: p.app.Spec.SourceRef.Name}
	if err := p.r.Client.Get(ctx, key, &p.source); err != nil {
		return client.IgnoreNotFound(err)
	}
	repository, err := p.r.open(ctx, &p.source)
	if err != nil {
		return nil //nolint:nilerr // a pin that stays costs some bytes; the Application must be able to go
	}
	return repository.Unpin(p.app.Name)
}
