package apply

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/reconciler/plan"
)

// letGoManager owns, for a moment, the fields that we let go of: a field that nobody owns when we drop it would be removed.
const letGoManager = "slipway-let-go"

// patchShared applies an object of which some fields are left to others. They keep the value that they have, or get that of
// action.Initial, and belong to nobody afterwards unless somebody else has them. An agent that is killed in between
// leaves letGoManager behind; the next apply of the object takes it away.
func (a *Applier) patchShared(ctx context.Context, r resource, action plan.Action) (*metav1.PartialObjectMetadata, error) {
	if action.Initial != nil {
		options := a.applyOptions()
		options.FieldManager = letGoManager
		if _, err := a.applyObject(ctx, r, action.Ref, action.Initial, options); err != nil {
			return nil, err
		}
	} else {
		err := a.rewriteManagers(ctx, r, action.Ref, func(object *metav1.PartialObjectMetadata) (bool, error) {
			return lend(object, a.options.Manager), nil
		})
		if err != nil {
			return nil, fmt.Errorf("letting go of ignored fields: %w", err)
		}
	}
	applied, err := a.applyObject(ctx, r, action.Ref, action.Object, a.applyOptions())
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(applied.ManagedFields, lent) {
		return applied, nil
	}
	err = a.rewriteManagers(ctx, r, action.Ref, func(object *metav1.PartialObjectMetadata) (bool, error) {
		before := len(object.ManagedFields)
		object.ManagedFields = slices.DeleteFunc(object.ManagedFields, lent)
		return len(object.ManagedFields) != before, nil
	})
	if err != nil {
		return nil, fmt.Errorf("letting go of ignored fields: %w", err)
	}
	return applied, nil
}

func lent(e metav1.ManagedFieldsEntry) bool { return e.Manager == letGoManager }

// lend makes letGoManager an owner of all that manager owns. It reports false when there is nothing to lend.
func lend(object *metav1.PartialObjectMetadata, manager string) bool {
	for _, e := range object.ManagedFields {
		if e.Manager == manager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == "" {
			e.Manager = letGoManager
			object.ManagedFields = append(slices.DeleteFunc(object.ManagedFields, lent), e)
			return true
		}
	}
	return false
}
