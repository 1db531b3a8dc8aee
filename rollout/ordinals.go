package rollout

import (
	"context"
	"encoding/json"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// arrangeOrdinals puts an Arrangement of a StatefulSet in place: the configuration of both versions in copies, then the
// StatefulSet with the template of the one that comes in, or of stable. All else of a Bundle is stable's until the last pods
// become new. What no pod uses any more goes. It returns what to compare with later.
func (r *Reconciler) arrangeOrdinals(ctx context.Context, rollout *v1alpha1.Rollout, a analysis.Arrangement, o analysis.Observation) ([]v1alpha1.AppliedObject, error) {
	w := &arranging{Reconciler: r, rollout: rollout, Arrangement: a, o: o}
	blame := func(err error) error { return errStable{err} }
	if rollout.Status.Stable == nil { // the first version answers for itself
		blame = func(err error) error { return err }
	}
	stable, err := r.load(ctx, rollout.Namespace, a.Stable)
	if err != nil {
		return nil, blame(err)
	}
	rest, copies := parts(stable, rollout, a.Stable.Digest)
	for _, form := range copies {
		if err := w.placeBeside(ctx, form); err != nil {
			return w.applied, blame(err)
		}
	}
	if a.Canary == nil {
		err := w.returnTo(ctx, stable, rest, blame)
		return w.applied, err
	}
	canary, err := r.load(ctx, rollout.Namespace, *a.Canary)
	if err != nil {
		return w.applied, err
	}
	news, copies := parts(canary, rollout, a.Canary.Digest)
	for _, form := range copies {
		if err := w.placeBeside(ctx, form); err != nil {
			return w.applied, err
		}
	}
	if a.Partition() == 0 { // what is wrong with it shows while there is a way back
		rest, blame = news, func(err error) error { return err }
	}
	for _, form := range rest {
		if _, err := w.place(ctx, form); err != nil {
			return w.applied, blame(err)
		}
	}
	_, err = w.place(ctx, w.setForm(canary))
	return w.applied, err
}

// returnTo lets stable have all pods, before anything that could go wrong.
func (w *arranging) returnTo(ctx context.Context, stable, rest []*unstructured.Unstructured, blame func(error) error) error {
	if w.o.Workload.Knowledge == analysis.Present {
		if _, err := w.place(ctx, w.setForm(stable)); err != nil {
			return blame(err)
		}
	}
	for _, form := range rest {
		if _, err := w.place(ctx, form); err != nil {
			return blame(err)
		}
	}
	if w.o.Workload.Knowledge != analysis.Present {
		if _, err := w.place(ctx, w.setForm(stable)); err != nil {
			return blame(err)
		}
	}
	if w.o.Workload.Returned() && w.o.Workload.Placed.Bundle == w.Stable.Digest {
		return w.removeRest(ctx)
	}
	return nil
}

// setForm is the StatefulSet of a Bundle as it is applied: with copies of its configuration, and the partition.
func (w *arranging) setForm(bundle []*unstructured.Unstructured) *unstructured.Unstructured {
	for _, object := range bundle {
		if !isWorkload(object) {
			continue
		}
		form := formOf(object, w.rollout.Labels[manifests.LabelApplication], w.Placed)
		form = WithCopies(form, bundle)
		merge(form, map[string]any{"type": string(appsv1.RollingUpdateStatefulSetStrategyType)}, "spec", "updateStrategy")
		merge(form, map[string]any{"partition": int64(w.Partition())}, "spec", "updateStrategy", "rollingUpdate")
		if _, sized, _ := unstructured.NestedFieldNoCopy(form.Object, "spec", "replicas"); sized { // else an autoscaler's
			resize(form, w.StableReplicas+w.CanaryReplicas)
		}
		return form
	}
	return &unstructured.Unstructured{Object: map[string]any{}} // a Bundle has a workload: it is cut around one
}

// parts are the forms of a Bundle without its StatefulSet, and copies of its configuration. The objects themselves stay
// what others find under their names.
func parts(bundle []*unstructured.Unstructured, rollout *v1alpha1.Rollout, digest string) (rest, copies []*unstructured.Unstructured) {
	names, application := copyNames(bundle), rollout.Labels[manifests.LabelApplication]
	for _, object := range bundle {
		if isWorkload(object) {
			continue
		}
		form := formOf(object, application, analysis.Placed{Bundle: digest})
		rest = append(rest, form)
		if name := names[object.GetKind()+"/"+object.GetName()]; name != "" {
			one := form.DeepCopy()
			one.SetName(name)
			copies = append(copies, besides(one, rollout))
		}
	}
	return rest, copies
}

// WithCopies is a StatefulSet as its pods are once it is rolled out: they use copies of the configuration that moves with it.
// What is none is returned as it is.
func WithCopies(object *unstructured.Unstructured, moved []*unstructured.Unstructured) *unstructured.Unstructured {
	if object.GetKind() != "StatefulSet" || object.GroupVersionKind().Group != appsv1.GroupName {
		return object
	}
	form := object.DeepCopy()
	template, _, _ := unstructured.NestedFieldNoCopy(form.Object, "spec", "template")
	rename(template, copyNames(moved))
	return form
}

// copyNames name the copies of a Bundle's configuration by content, so that pods are replaced when that changes and not
// when anything else of the Bundle does.
func copyNames(bundle []*unstructured.Unstructured) map[string]string {
	names := map[string]string{}
	for _, object := range bundle {
		if !isConfiguration(object) {
			continue
		}
		content := map[string]any{}
		for _, field := range []string{"data", "binaryData", "stringData", "type"} {
			if value, is := object.Object[field]; is {
				content[field] = value
			}
		}
		text, err := json.Marshal(content)
		if err != nil {
			continue // it came from JSON
		}
		names[object.GetKind()+"/"+object.GetName()] = object.GetName() + "-" + manifests.DigestOf(text).Short()
	}
	return names
}
