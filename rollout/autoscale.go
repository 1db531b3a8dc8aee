package rollout

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/slipway-cd/slipway/manifests"
)

// ownsReplicas says that the number of a workload's pods is what the loop has applied: nobody else has set it since.
func ownsReplicas(live metav1.Object) bool {
	for _, e := range live.GetManagedFields() {
		if e.Manager != manifests.RolloutManager || e.Operation != metav1.ManagedFieldsOperationApply || e.Subresource != "" || e.FieldsV1 == nil {
			continue
		}
		fields := &fieldpath.Set{}
		if fields.FromJSON(e.FieldsV1.GetRawReader()) == nil && fields.Has(fieldpath.MakePathOrDie("spec", "replicas")) {
			return true
		}
	}
	return false
}

// handOver keeps the number of a workload's pods where form has none and the loop had applied one: dropped without another
// owner it would fall back to 1, below what the autoscaler that it is dropped for had asked for. What the autoscaler changes
// meanwhile is its own.
func (r *Reconciler) handOver(ctx context.Context, form *unstructured.Unstructured) error {
	_, sized, _ := unstructured.NestedFieldNoCopy(form.Object, "spec", "replicas")
	if kind := form.GetKind(); sized || kind != "Deployment" && kind != "StatefulSet" {
		return nil
	}
	for tries := 1; ; tries++ {
		live := &unstructured.Unstructured{}
		live.SetGroupVersionKind(form.GroupVersionKind())
		if err := r.direct.Get(ctx, client.ObjectKeyFromObject(form), live); err != nil {
			return client.IgnoreNotFound(err)
		}
		replicas, is, _ := unstructured.NestedInt64(live.Object, "spec", "replicas")
		if !is || !ownsReplicas(live) {
			return nil
		}
		kept := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"replicas": replicas}}}
		kept.SetGroupVersionKind(form.GroupVersionKind())
		kept.SetNamespace(live.GetNamespace())
		kept.SetName(live.GetName())
		kept.SetResourceVersion(live.GetResourceVersion())
		err := r.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(kept), client.FieldOwner(manifests.HandOverManager))
		switch {
		case err == nil:
			return nil
		case !apierrors.IsConflict(err) || tries == 3:
			return fmt.Errorf("handing over spec.replicas: %w", err)
		}
	}
}
