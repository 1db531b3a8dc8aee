package apply

import (
	"context"
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/slipway-cd/slipway/reconciler/plan"
)

// takeIntruders makes ours, so that the next apply removes them, the items that
// others typed into keyed lists which Git writes too. Somebody who changes the key of
// an item (the port of a Service, say) has removed ours and added another one; to
// add ours again beside it is often invalid, and never what Git says.
func (a *Applier) takeIntruders(ctx context.Context, r resource, action plan.Action) (bool, error) {
	taken := false
	err := a.rewriteManagers(ctx, r, action.Ref, func(object *metav1.PartialObjectMetadata) (bool, error) {
		var err error
		taken, err = claimItems(object, action.Object, a.options.Manager)
		return taken, err
	})
	return taken, err
}

// claimItems moves the intruders' fields to manager's entry.
func claimItems(object *metav1.PartialObjectMetadata, want *unstructured.Unstructured, manager string) (bool, error) {
	claimed := fieldpath.NewSet()
	for i, e := range object.ManagedFields {
		if e.Manager == manager || e.Operation != metav1.ManagedFieldsOperationUpdate || e.Subresource != "" {
			continue
		}
		fields, err := fieldSet(e)
		if err != nil {
			return false, err
		}
		strangers := fieldpath.NewSet()
		fields.Iterate(func(path fieldpath.Path) {
			if strange(want.Object, path) {
				strangers.Insert(path.Copy())
			}
		})
		if strangers.Empty() {
			continue
		}
		claimed = claimed.Union(strangers)
		if object.ManagedFields[i].FieldsV1, err = fieldsV1(fields.Difference(strangers)); err != nil {
			return false, err
		}
	}
	if claimed.Empty() {
		return false, nil
	}
	return true, claim(object, claimed, want.GetAPIVersion(), manager)
}

// strange reports whether path leads into an item of a keyed list that want has, but not with this item.
func strange(want any, path fieldpath.Path) bool {
	for _, element := range path {
		switch {
		case element.FieldName != nil:
			fields, ok := want.(map[string]any)
			if !ok {
				return false
			}
			if want, ok = fields[*element.FieldName]; !ok {
				return false
			}
		case element.Key != nil:
			items, ok := want.([]any)
			if !ok {
				return false
			}
			if want = itemOf(items, element); want == nil {
				return true
			}
		default:
			return false
		}
	}
	return false
}

// itemOf returns the item with the key; keys that an item leaves to their default fit any value.
func itemOf(items []any, element fieldpath.PathElement) any {
	for _, item := range items {
		fields, ok := item.(map[string]any)
		if !ok {
			continue
		}
		fits, named := true, false
		for _, key := range *element.Key {
			if value, set := fields[key.Name]; set {
				named = true
				fits = fits && reflect.DeepEqual(fmt.Sprint(value), fmt.Sprint(key.Value.Unstructured()))
			}
		}
		if fits && named {
			return item
		}
	}
	return nil
}

// claim adds fields to manager's own entry.
func claim(object *metav1.PartialObjectMetadata, fields *fieldpath.Set, apiVersion, manager string) error {
	for i, e := range object.ManagedFields {
		if e.Manager == manager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == "" {
			own, err := fieldSet(e)
			if err != nil {
				return err
			}
			object.ManagedFields[i].FieldsV1, err = fieldsV1(own.Union(fields))
			return err
		}
	}
	content, err := fieldsV1(fields)
	object.ManagedFields = append(object.ManagedFields, metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationApply, APIVersion: apiVersion, FieldsType: "FieldsV1", FieldsV1: content,
	})
	return err
}

func fieldsV1(fields *fieldpath.Set) (*metav1.FieldsV1, error) {
	content, err := fields.ToJSON()
	if err != nil {
		return nil, err
	}
	out := &metav1.FieldsV1{}
	out.SetRawBytes(content)
	return out, nil
}
