package rollout

import (
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// meddledWith says that somebody has changed or deleted one of the workloads since they were applied as they are to be. Its
// newest pods may be of no version then, and there may be none.
func (w *arranging) meddledWith(ctx context.Context) bool {
	status := w.rollout.Status
	if !sameBundles(status.AppliedBundle, arrangedAs(w.rollout, w.Arrangement, w.o)) {
		return false // it is the loop that changes them
	}
	return slices.ContainsFunc(status.Applied, func(applied v1alpha1.AppliedObject) bool {
		if applied.Kind != "Deployment" {
			return false
		}
		ref := manifests.Ref{Group: applied.Group, Kind: applied.Kind, Namespace: w.rollout.Namespace, Name: applied.Name}
		live, err := metadataOf(ctx, w.direct, ref, applied.Version)
		return apierrors.IsNotFound(err) || err == nil && live.DeletionTimestamp == nil && !asApplied(&live, applied, status.AppliedBundle)
	})
}

// unpaused owns spec.paused where Git says nothing of it: a workload that somebody holds by hand would hold the Rollout too,
// which has orders of its own for that, with a reason and an end.
func unpaused(deployment *unstructured.Unstructured) {
	if _, said, _ := unstructured.NestedFieldNoCopy(deployment.Object, "spec", "paused"); !said {
		merge(deployment, map[string]any{"paused": false}, "spec")
	}
}

// oust takes what others have put into the spec of an object that the API server does not accept beside ours, like a second
// port of a Service that makes names of both necessary. It is false when there is no such thing.
func (r *Reconciler) oust(ctx context.Context, form *unstructured.Unstructured) (bool, error) {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(form.GroupVersionKind())
	if err := r.direct.Get(ctx, client.ObjectKeyFromObject(form), live); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	spec, err := takeSpec(live)
	if err != nil || !spec {
		return false, err
	}
	return true, r.patchManagers(ctx, live)
}

// takeSpec gives us the fields of the spec that others have set by hand, so that what is not wanted goes.
func takeSpec(object *unstructured.Unstructured) (taken bool, err error) {
	all := &fieldpath.Set{}
	var ours *metav1.ManagedFieldsEntry
	var entries []metav1.ManagedFieldsEntry
	for _, e := range object.GetManagedFields() {
		fields := &fieldpath.Set{}
		if e.FieldsV1 != nil {
			if err := fields.FromJSON(e.FieldsV1.GetRawReader()); err != nil {
				return false, err
			}
		}
		switch {
		case e.Subresource != "":
		case e.Manager == manifests.RolloutManager && e.Operation == metav1.ManagedFieldsOperationApply:
			all, ours = all.Union(fields), &e
			continue
		case e.Operation == metav1.ManagedFieldsOperationUpdate:
			spec := specOf(fields)
			if spec.Empty() {
				break
			}
			all, taken = all.Union(spec), true
			if fields = fields.Difference(spec); fields.Empty() {
				continue
			}
			if e.FieldsV1, err = fieldsOf(fields); err != nil {
				return false, err
			}
		}
		entries = append(entries, e)
	}
	if ours == nil || !taken {
		return false, nil
	}
	if ours.FieldsV1, err = fieldsOf(all); err != nil {
		return false, err
	}
	object.SetManagedFields(append(entries, *ours))
	return true, nil
}

func specOf(fields *fieldpath.Set) *fieldpath.Set {
	spec := &fieldpath.Set{}
	fields.Iterate(func(path fieldpath.Path) {
		if path[0].FieldName != nil && *path[0].FieldName == "spec" {
			spec.Insert(path.Copy())
		}
	})
	return spec
}

func fieldsOf(fields *fieldpath.Set) (*metav1.FieldsV1, error) {
	content, err := fields.ToJSON()
	if err != nil {
		return nil, err
	}
	encoded := &metav1.FieldsV1{}
	encoded.SetRawBytes(content)
	return encoded, nil
}
