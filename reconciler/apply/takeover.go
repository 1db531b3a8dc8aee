package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/csaupgrade"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// migrate makes the fields of former tools, and of the rollout loop, ours.
// Without it a field that leaves Git would stay, owned by a tool that is not used any more.
func (a *Applier) migrate(ctx context.Context, r resource, ref manifests.Ref) error {
	return a.rewriteManagers(ctx, r, ref, func(object *metav1.PartialObjectMetadata) (bool, error) {
		return takeOver(object, a.options.Manager)
	})
}

// reclaim ends the ownership that people's tools share with us after a heal: a
// value that was changed and put back by hand would otherwise outlive its removal from Git.
func (a *Applier) reclaim(ctx context.Context, r resource, ref manifests.Ref, healed *metav1.PartialObjectMetadata) error {
	shared, err := takeBack(healed.DeepCopy(), a.options.Manager)
	if err != nil || !shared {
		return err
	}
	return a.rewriteManagers(ctx, r, ref, func(object *metav1.PartialObjectMetadata) (bool, error) {
		return takeBack(object, a.options.Manager)
	})
}

// rewriteManagers changes the managedFields of an object, again when somebody else wrote in between.
func (a *Applier) rewriteManagers(ctx context.Context, r resource, ref manifests.Ref, rewrite func(*metav1.PartialObjectMetadata) (bool, error)) error {
	return again(func() error { return a.rewriteOnce(ctx, r, ref, rewrite) })
}

// again calls once until nobody has written in between, a few times.
func again(once func() error) error {
	const attempts = 5
	var err error
	for range attempts {
		if err = once(); !apierrors.IsConflict(err) {
			return err
		}
	}
	return err
}

func (a *Applier) rewriteOnce(ctx context.Context, r resource, ref manifests.Ref, rewrite func(*metav1.PartialObjectMetadata) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, a.options.Timeout)
	defer cancel()
	client := a.metadataOf(r, ref)
	object, err := client.Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // the apply creates it
	}
	if err != nil {
		return err
	}
	changed, err := rewrite(object)
	if err != nil || !changed {
		return err
	}
	patch, err := json.Marshal([]map[string]any{
		{"op": "replace", "path": "/metadata/managedFields", "value": object.ManagedFields},
		// replace and not test: it makes a lost race a conflict, not an invalid request
		{"op": "replace", "path": "/metadata/resourceVersion", "value": object.ResourceVersion},
	})
	if err != nil {
		return err
	}
	_, err = client.Patch(ctx, ref.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: a.options.Manager})
	return err
}

// takeOver moves the managedFields of former managers of object to manager.
func takeOver(object *metav1.PartialObjectMetadata, manager string) (bool, error) {
	names := sets.New[string]()
	for i, e := range object.ManagedFields {
		m := plan.Manager{Name: e.Manager, Operation: string(e.Operation), Subresource: e.Subresource}
		rollout := e.Manager == manifests.RolloutManager && e.Subresource == ""
		if e.Manager == manager || !plan.Former(m) && !rollout {
			continue
		}
		// csaupgrade knows former tools that made Updates; one that applied server-side is taken over the same way.
		object.ManagedFields[i].Operation = metav1.ManagedFieldsOperationUpdate
		names.Insert(e.Manager)
	}
	if names.Len() == 0 {
		return false, nil
	}
	return true, csaupgrade.UpgradeManagedFields(object, names, manager)
}

// takeBack takes the fields that manager owns by apply out of the entries of interactive tools, and of the manager
// that stands for all others after managedFields were wiped.
func takeBack(object *metav1.PartialObjectMetadata, manager string) (bool, error) {
	own := &fieldpath.Set{}
	for _, e := range object.ManagedFields {
		if e.Manager == manager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == "" {
			fields, err := fieldSet(e)
			if err != nil {
				return false, err
			}
			own = own.Union(fields)
		}
	}
	changed := false
	var kept []metav1.ManagedFieldsEntry
	for _, e := range object.ManagedFields {
		if !interactive(e) {
			kept = append(kept, e)
			continue
		}
		fields, err := fieldSet(e)
		if err != nil {
			return false, err
		}
		rest := fields.Difference(own)
		changed = changed || rest.Size() != fields.Size()
		if rest.Empty() {
			continue
		}
		if e.FieldsV1, err = fieldsV1(rest); err != nil {
			return false, err
		}
		kept = append(kept, e)
	}
	object.ManagedFields = kept
	return changed, nil
}

// interactive says whether an entry is that of a tool in a person's hands, or of nobody. Controllers keep what they share with us.
func interactive(e metav1.ManagedFieldsEntry) bool {
	return e.Operation == metav1.ManagedFieldsOperationUpdate && e.Subresource == "" &&
		(strings.HasPrefix(e.Manager, "kubectl") || e.Manager == plan.BeforeFirstApply)
}

func fieldSet(e metav1.ManagedFieldsEntry) (*fieldpath.Set, error) {
	fields := &fieldpath.Set{}
	if e.FieldsV1 == nil {
		return fields, nil
	}
	if err := fields.FromJSON(e.FieldsV1.GetRawReader()); err != nil {
		return nil, fmt.Errorf("managedFields of %s cannot be read: %w", e.Manager, err)
	}
	return fields, nil
}

// setsReplicas says whether the field is not one that could be lost: Git sets
// it, or the kind is none that autoscalers target by that field.
func setsReplicas(action plan.Action) bool {
	ref := action.Ref
	if ref.Group != "apps" || ref.Kind != "Deployment" && ref.Kind != "StatefulSet" {
		return true
	}
	_, set, _ := unstructured.NestedFieldNoCopy(action.Object.Object, "spec", "replicas")
	return set
}

// handOverReplicas keeps the number of replicas when the field leaves Git:
// dropped without another owner it would fall back to 1 at once, below what the
// autoscaler that it was dropped for had asked for.
//
// The autoscaler may come in the same commit, so that it counts while this is under way: what it has changed is its own, and
// is not set back.
func (a *Applier) handOverReplicas(ctx context.Context, r resource, action plan.Action) error {
	return again(func() error { return a.handOverOnce(ctx, r, action) })
}

func (a *Applier) handOverOnce(ctx context.Context, r resource, action plan.Action) error {
	ctx, cancel := context.WithTimeout(ctx, a.options.Timeout)
	defer cancel()
	client := a.wholeOf(r, action.Ref)
	live, err := client.Get(ctx, action.Ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	replicas, set, _ := unstructured.NestedInt64(live.Object, "spec", "replicas")
	owned, err := ownsPath(live.GetManagedFields(), a.options.Manager, "f:spec", "f:replicas")
	if err != nil || !set || !owned {
		return err
	}
	content, err := json.Marshal(map[string]any{
		"apiVersion": live.GetAPIVersion(), "kind": live.GetKind(),
		"metadata": map[string]any{"name": action.Ref.Name, "namespace": action.Ref.Namespace, "resourceVersion": live.GetResourceVersion()},
		"spec":     map[string]any{"replicas": replicas},
	})
	if err != nil {
		return err
	}
	options := a.applyOptions()
	options.FieldManager = manifests.HandOverManager
	_, err = client.Patch(ctx, action.Ref.Name, types.ApplyPatchType, content, options)
	return err
}

// ownsPath says whether manager owns the field by server-side apply; path elements are those of FieldsV1.
func ownsPath(entries []metav1.ManagedFieldsEntry, manager string, path ...string) (bool, error) {
	for _, e := range entries {
		if e.Manager != manager || e.Operation != metav1.ManagedFieldsOperationApply || e.Subresource != "" || e.FieldsV1 == nil {
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal(e.FieldsV1.GetRawBytes(), &fields); err != nil {
			return false, errors.New("managedFields cannot be read")
		}
		if _, found, _ := unstructured.NestedFieldNoCopy(fields, path...); found {
			return true, nil
		}
	}
	return false, nil
}
