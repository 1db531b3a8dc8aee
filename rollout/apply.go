package rollout

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/csaupgrade"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// apply puts a Bundle in place, the workload last: once the workload is marked,
// all that it uses is there. It returns what to compare with later.
func (r *Reconciler) apply(ctx context.Context, rollout *v1alpha1.Rollout, bundle v1alpha1.BundleRef, placed analysis.Placed) ([]v1alpha1.AppliedObject, error) {
	objects, err := r.load(ctx, rollout.Namespace, bundle)
	if err != nil {
		return nil, err
	}
	var applied []v1alpha1.AppliedObject
	for _, form := range formsOf(objects, rollout, placed) {
		live, err := r.applyObject(ctx, form)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", manifests.RefOf(form), err)
		}
		applied = append(applied, appliedOf(live))
	}
	return applied, nil
}

// applyObject applies one object and returns it as it is then. Fields of those
// who applied it before become ours, so that what left the Bundle goes away.
func (r *Reconciler) applyObject(ctx context.Context, form *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if err := r.handOver(ctx, form); err != nil {
		return nil, err
	}
	live, err := r.send(ctx, form)
	if apierrors.IsInvalid(err) {
		if ousted, failed := r.oust(ctx, form); failed == nil && ousted {
			live, err = r.send(ctx, form)
		}
	}
	if err != nil {
		return nil, err
	}
	changed, err := takeOver(live)
	if err != nil {
		return nil, fmt.Errorf("taking over its fields: %w", err)
	}
	if !changed {
		return live, nil
	}
	if err := r.patchManagers(ctx, live); err != nil {
		return nil, fmt.Errorf("taking over its fields: %w", err)
	}
	if err := r.handOver(ctx, form); err != nil {
		return nil, err
	}
	return r.send(ctx, form)
}

func (r *Reconciler) send(ctx context.Context, form *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	live := form.DeepCopy()
	err := r.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(live), client.FieldOwner(manifests.RolloutManager), client.ForceOwnership)
	return live, err
}

// takeOver gives us the managedFields of the reconciler and of former tools.
func takeOver(object *unstructured.Unstructured) (bool, error) {
	entries, names := object.GetManagedFields(), sets.New[string]()
	for i, e := range entries {
		manager := plan.Manager{Name: e.Manager, Operation: string(e.Operation), Subresource: e.Subresource}
		if plan.Former(manager) || e.Manager == manifests.FieldManager && e.Subresource == "" {
			// csaupgrade joins Updates with an Apply; who applied server-side before is taken over the same way.
			entries[i].Operation = metav1.ManagedFieldsOperationUpdate
			names.Insert(e.Manager)
		}
	}
	if names.Len() == 0 {
		return false, nil
	}
	object.SetManagedFields(entries)
	return true, csaupgrade.UpgradeManagedFields(object, names, manifests.RolloutManager)
}

// patchManagers writes managedFields, and takes away what else the operations say. It fails when the object has changed since.
func (r *Reconciler) patchManagers(ctx context.Context, object client.Object, more ...map[string]any) error {
	operations := append([]map[string]any{
		{"op": "replace", "path": "/metadata/managedFields", "value": object.GetManagedFields()},
		// replace and not test: it makes a lost race a conflict, not an invalid request
		{"op": "replace", "path": "/metadata/resourceVersion", "value": object.GetResourceVersion()},
	}, more...)
	content, err := json.Marshal(operations)
	if err != nil {
		return err
	}
	target := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: object.GetNamespace(), Name: object.GetName()}}
	target.SetGroupVersionKind(object.GetObjectKind().GroupVersionKind())
	return r.client.Patch(ctx, target, client.RawPatch(types.JSONPatchType, content), client.FieldOwner(manifests.RolloutManager))
}

// handBack makes the reconciler the manager of an object, without our marks. An object that is gone stays gone.
func (r *Reconciler) handBack(ctx context.Context, namespace string, applied v1alpha1.AppliedObject) error {
	ref := manifests.Ref{Group: applied.Group, Kind: applied.Kind, Namespace: namespace, Name: applied.Name}
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(ref.GroupKind().WithVersion(applied.Version))
	err := r.direct.Get(ctx, client.ObjectKey{Namespace: namespace, Name: applied.Name}, object)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	entries := object.GetManagedFields()
	ours := slices.IndexFunc(entries, func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == manifests.RolloutManager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == ""
	})
	theirs := slices.ContainsFunc(entries, func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == manifests.FieldManager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == ""
	})
	switch {
	case ours < 0:
	case theirs: // the reconciler has applied it already: it knows all that it wants
		entries = slices.Delete(entries, ours, ours+1)
	default:
		entries[ours].Manager = manifests.FieldManager
	}
	object.SetManagedFields(entries)
	var marks []map[string]any
	for _, key := range []string{manifests.AnnotationBundle, manifests.AnnotationFailedBundle, manifests.AnnotationTraffic} {
		if _, marked := object.Annotations[key]; marked {
			marks = append(marks, map[string]any{"op": "remove", "path": "/metadata/annotations/" + pointer(key)})
		}
	}
	if ours < 0 && len(marks) == 0 {
		return nil
	}
	if err := r.patchManagers(ctx, object, marks...); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("%s: handing it back: %w", ref, err)
	}
	return nil
}
