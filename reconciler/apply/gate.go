package apply

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-cd/slipway/reconciler/plan"
)

// awaitGate waits until what a stage brought in can be used by the next one.
func (a *Applier) awaitGate(ctx context.Context, stage plan.Stage) *ObjectError {
	var ready func(context.Context, plan.Action, *unstructured.Unstructured) (bool, error)
	var what string
	switch stage.Gate {
	case plan.Established:
		a.mapper.expire()
		ready, what = a.established, "not established"
	case plan.Active:
		ready, what = active, "not active"
	default:
		return nil
	}
	for _, action := range stage.Actions {
		r, err := a.mapper.find(action.Ref.GroupKind(), action.Version)
		if err != nil {
			return objectError(action.Ref, err)
		}
		err = a.poll(ctx, func(ctx context.Context) (bool, error) {
			object, err := a.wholeOf(r, action.Ref).Get(ctx, action.Ref.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return false, errors.New("somebody deleted it")
			}
			if err != nil {
				return false, err
			}
			return ready(ctx, action, object)
		})
		if err != nil {
			return objectError(action.Ref, fmt.Errorf("%s: %w", what, err))
		}
	}
	return nil
}

// active says whether a Namespace takes objects. One that terminates never does again.
func active(_ context.Context, _ plan.Action, namespace *unstructured.Unstructured) (bool, error) {
	phase, _, _ := unstructured.NestedString(namespace.Object, "status", "phase")
	if phase == "Terminating" {
		return false, errors.New("it is being deleted")
	}
	return phase == "Active", nil
}

// established says whether a CustomResourceDefinition is accepted and its versions are served.
func (a *Applier) established(ctx context.Context, _ plan.Action, crd *unstructured.Unstructured) (bool, error) {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	ok := false
	for _, item := range conditions {
		condition, _ := item.(map[string]any)
		switch {
		case condition["type"] == "NamesAccepted" && condition["status"] == "False":
			return false, fmt.Errorf("names are not accepted: %v", condition["message"])
		case condition["type"] == "Established" && condition["status"] == "True":
			ok = true
		}
	}
	if !ok {
		return false, nil
	}
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, item := range versions {
		version, _ := item.(map[string]any)
		name, _ := version["name"].(string)
		if version["served"] != true {
			continue
		}
		r, err := a.mapper.find(schema.GroupKind{Group: group, Kind: kind}, name)
		if err == nil {
			_, err = a.metadata.Resource(r.gvr).List(ctx, metav1.ListOptions{Limit: 1})
		}
		if err != nil { // established, not published yet
			a.mapper.expire()
			return false, nil //nolint:nilerr // the poll ends with the context
		}
	}
	return true, nil
}
