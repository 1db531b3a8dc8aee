package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
	"github.com/slipway-cd/slipway/rollout/analysis"
	"github.com/slipway-cd/slipway/rollout/gateway"
)

// labelHash tells the pods of one ReplicaSet from those of others.
const labelHash = appsv1.DefaultDeploymentUniqueLabelKey

// errNotYet is that a controller of Kubernetes has to do something first, or that time has to pass. It says nothing about a
// version.
var errNotYet = errors.New("not there yet")

// errDraining is an errNotYet that ends by itself.
type errDraining struct{ left time.Duration }

func (e errDraining) Error() string        { return "gateways and nodes have to hear of it first" }
func (e errDraining) Is(target error) bool { return target == errNotYet }

// retryAfter is the pause after an errNotYet.
func retryAfter(err error) time.Duration {
	if draining := (errDraining{}); errors.As(err, &draining) {
		return draining.left
	}
	return 200 * time.Millisecond
}

// errStable is trouble with what is not the new version's: that version is not to blame.
type errStable struct{ error }

func (e errStable) Unwrap() error { return e.error }

// arranging puts one Arrangement in place.
type arranging struct {
	*Reconciler
	rollout *v1alpha1.Rollout
	analysis.Arrangement
	o        analysis.Observation
	services []*unstructured.Unstructured // of the Bundle of stable, named by the Rollout
	routes   []*unstructured.Unstructured // likewise
	stable   []*unstructured.Unstructured // the rest of it
	// canaryForms run beside; unread is why they are not known, and stable takes traffic back without them.
	canaryForms, canaryServices []*unstructured.Unstructured
	unread                      error
	canary                      []*unstructured.Unstructured // what is applied beside stable: these, and what sends to it or to stable alone
	moved                       []*unstructured.Unstructured // what traffic was moved by, as it is live
	meddled                     bool                         // somebody has changed one of the workloads
	applied                     []v1alpha1.AppliedObject
}

// arrangedAs is what status.appliedBundle says once a is in place. It begins as that of a Bundle alone, and is that when
// nothing is left beside it, or of another version in a StatefulSet.
func arrangedAs(rollout *v1alpha1.Rollout, a analysis.Arrangement, o analysis.Observation) string {
	w := o.Workload
	whole := w.Placed.Bundle == a.Stable.Digest && (rollout.Status.AppliedBundle == a.Stable.Digest || w.Returned())
	switch {
	case a.Canary != nil && byOrdinal(rollout):
		return fmt.Sprintf("%s with %s: "+ordinalNumbers, a.Stable.Digest, a.Canary.Digest, a.StableReplicas, a.CanaryReplicas, w.First)
	case a.Canary != nil:
		as := fmt.Sprintf("%s with %s: %d and %d replicas", a.Stable.Digest, a.Canary.Digest, a.StableReplicas, a.CanaryReplicas)
		if !sharesPods(rollout) { // else these say all of it
			as += ", traffic " + trafficInto(a)
		}
		return as
	case o.Canary.Knowledge == analysis.Present, byOrdinal(rollout) && !whole:
		return a.Stable.Digest + " alone"
	}
	return a.Stable.Digest
}

// begins notes that something is to be beside stable before anything is. Whoever is killed on the way leaves that note: else
// the next agent could find what it wants in place, and take what else was left for nothing. It is false when that could not be
// written, and need not be done after a Fail: then it was noted long ago.
func (p *pass) begins(ctx context.Context, a analysis.Arrangement) bool {
	if Beside(p.rollout) || arrangedAs(p.rollout, a, p.o) == a.Stable.Digest {
		return true
	}
	p.note(ctx, p.rollout.Status.Applied, a.Stable.Digest+" alone")
	return p.failed == nil || a.Placed.Failed != ""
}

// sameBundles says that two of what arrangedAs returns differ at most in numbers of pods and shares of traffic.
func sameBundles(a, b string) bool {
	trim := func(as string) string {
		bundles, _, _ := strings.Cut(as, ": ")
		return strings.TrimSuffix(bundles, " alone")
	}
	return trim(a) == trim(b)
}

// arrange puts a in place: what has to grow, traffic, what shrinks or goes. Traffic that leaves the canary goes first of
// all. It returns what to compare with later; with an error, of what is in place by then.
func (r *Reconciler) arrange(ctx context.Context, rollout *v1alpha1.Rollout, a analysis.Arrangement, o analysis.Observation) ([]v1alpha1.AppliedObject, error) {
	w := &arranging{Reconciler: r, rollout: rollout, Arrangement: a, o: o}
	if err := w.load(ctx); err != nil {
		return nil, err
	}
	w.meddled = w.meddledWith(ctx)
	for _, step := range w.order() {
		if err := step(ctx); err != nil {
			return w.applied, err
		}
	}
	return w.applied, nil
}

func (w *arranging) order() []func(context.Context) error {
	live := w.o.Workload
	there := live.Knowledge == analysis.Present && live.Placed.Bundle == w.Stable.Digest
	rises := w.Weight > w.o.Traffic.Weight || w.Header != analysis.Header{} && w.Header != w.o.Traffic.Header
	switch late := w.stableLate(); {
	case rises && late:
		return []func(context.Context) error{w.placeCanary, w.moveTraffic, w.placeStable, w.removeRest}
	case rises, w.Placed.Failed == "" && w.meddled: // what is newest is not what was applied: traffic is not to go there
		return []func(context.Context) error{w.placeStable, w.placeCanary, w.moveTraffic, w.removeRest}
	case late:
		return []func(context.Context) error{w.moveTraffic, w.placeCanary, w.placeStable, w.removeRest}
	case there: // traffic returns also when the API server takes nothing else
		return []func(context.Context) error{w.moveTraffic, w.placeStable, w.placeCanary, w.removeRest}
	}
	return []func(context.Context) error{w.placeStable, w.moveTraffic, w.placeCanary, w.removeRest}
}

func (w *arranging) load(ctx context.Context) error {
	objects, err := w.Reconciler.load(ctx, w.rollout.Namespace, w.Stable)
	if err != nil {
		return errStable{err}
	}
	for _, form := range formsOf(objects, w.rollout, w.Placed) {
		switch {
		case form.GetKind() == "Service":
			w.services = append(w.services, form)
			continue
		case form.GroupVersionKind().Group == gateway.Group:
			w.routes = append(w.routes, form)
			continue
		case form.GetKind() == "Deployment" && w.o.Scaled:
			unpaused(form)
			unstructured.RemoveNestedField(form.Object, "spec", "replicas")
		case form.GetKind() == "Deployment":
			unpaused(form)
			resize(form, w.StableReplicas)
		}
		w.stable = append(w.stable, form)
	}
	if w.Arrangement.Canary == nil {
		return nil
	}
	bundle, err := w.Reconciler.load(ctx, w.rollout.Namespace, *w.Arrangement.Canary)
	for _, form := range formsOf(bundle, w.rollout, analysis.Placed{Bundle: w.Arrangement.Canary.Digest}) {
		if form.GetKind() == "Service" {
			w.canaryServices = append(w.canaryServices, form)
		}
	}
	w.canaryForms, w.unread = canaryForms(bundle, w.rollout, w.Arrangement), err
	return nil
}

// stableLate says that the workload gets less to do: it is updated, or shrinks.
func (w *arranging) stableLate() bool {
	live := w.o.Workload
	return live.Knowledge == analysis.Present && (live.Placed.Bundle != w.Stable.Digest && w.Arrangement.Canary != nil || live.Wanted > w.StableReplicas)
}

func (w *arranging) placeStable(ctx context.Context) error {
	if err := w.stableDrained(); err != nil {
		return err
	}
	for _, form := range w.stable {
		if _, err := w.place(ctx, form); err != nil {
			return w.blamed(err)
		}
	}
	w.failpoint(FailpointStable, w.rollout)
	return nil
}

// blamed leaves an error to the version that becomes stable, and keeps it from one that runs beside stable.
func (w *arranging) blamed(err error) error {
	if w.Arrangement.Canary != nil && w.Stable.Digest == w.Arrangement.Canary.Digest {
		return err
	}
	return errStable{err}
}

// placeCanary applies what runs beside stable, the workload last but for what sends to it alone.
func (w *arranging) placeCanary(ctx context.Context) error {
	if w.unread != nil {
		return w.unread
	}
	if err := w.canaryDrained(); err != nil {
		return err
	}
	for _, form := range w.canaryForms {
		if err := w.placeBeside(ctx, form); err != nil {
			return err
		}
	}
	if w.Arrangement.Canary == nil {
		return nil
	}
	w.failpoint(FailpointCanary, w.rollout)
	if !w.Preview && !byRoutes(w.rollout) {
		return nil
	}
	return w.placeServices(ctx, w.canaryServices, canaryName(w.rollout), gateway.Canary)
}

// placeServices applies Services for the pods of one workload alone.
func (w *arranging) placeServices(ctx context.Context, services []*unstructured.Unstructured, workload string, name func(string) string) error {
	hash, err := w.hashOf(ctx, workload)
	if err != nil {
		return errStable{err}
	}
	for _, service := range services {
		if err := w.placeBeside(ctx, serviceOf(service, w.rollout, name(service.GetName()), hash)); err != nil {
			return errStable{err}
		}
	}
	return nil
}

// placeBeside applies an object that has not to be there, unless it is somebody else's.
func (w *arranging) placeBeside(ctx context.Context, form *unstructured.Unstructured) error {
	w.canary = append(w.canary, form)
	ref := manifests.RefOf(form)
	live, err := metadataOf(ctx, w.direct, ref, form.GroupVersionKind().Version)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return errStable{fmt.Errorf("%s: %w", ref, err)}
	case live.Labels[manifests.LabelCanary] != canaryLabel(w.rollout):
		return errStable{fmt.Errorf("%s: it is not the Rollout's (give it another name: this one is for what runs beside %s)", ref, w.rollout.Spec.WorkloadRef.Name)}
	case live.DeletionTimestamp != nil:
		return errStable{fmt.Errorf("%s: the one before is being deleted: %w", ref, errNotYet)}
	}
	_, err = w.place(ctx, form)
	return err
}

func (w *arranging) place(ctx context.Context, form *unstructured.Unstructured) (live *unstructured.Unstructured, err error) {
	if live, err = w.applyObject(ctx, form); err != nil {
		return nil, fmt.Errorf("%s: %w", manifests.RefOf(form), err)
	}
	w.applied = append(w.applied, appliedOf(live))
	return live, nil
}

// appliedOf is what to compare an object with later.
func appliedOf(live *unstructured.Unstructured) v1alpha1.AppliedObject {
	fields, _ := plan.FieldsDigest(live.GetManagedFields(), manifests.RolloutManager)
	gvk := live.GroupVersionKind()
	return v1alpha1.AppliedObject{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Name: live.GetName(), Fields: string(fields)}
}

// removeRest deletes what was beside stable and is not wanted any more, some time after traffic was moved.
func (w *arranging) removeRest(ctx context.Context) error {
	rest, err := w.rest(ctx)
	if err != nil {
		return errStable{fmt.Errorf("what is left beside stable: %w", err)}
	}
	if left := w.draining(w.drainOf(rest)); left > 0 && len(rest) > 0 {
		return errDraining{left}
	}
	if len(rest) > 0 {
		w.failpoint(FailpointRemoval, w.rollout)
	}
	for i := range rest {
		object := &rest[i]
		// In the foreground: as long as the workload is there its pods may be too, and Services are not to find them.
		err := w.client.Delete(ctx, object, client.Preconditions{UID: &object.UID}, client.PropagationPolicy(metav1.DeletePropagationForeground))
		if client.IgnoreNotFound(err) != nil {
			return errStable{fmt.Errorf("%s %s: %w", object.Kind, object.Name, err)}
		}
		w.failpoint(FailpointRemoved, w.rollout)
	}
	return nil
}

// drainOf is how long what is to be removed stays after traffic was moved. Services alone are known to nobody but gateways,
// which hear of them as soon as of the Routes; pods are known to nodes, too.
func (w *arranging) drainOf(rest []metav1.PartialObjectMetadata) time.Duration {
	if slices.ContainsFunc(rest, func(object metav1.PartialObjectMetadata) bool { return object.Kind != "Service" }) {
		return w.options.Drain
	}
	return min(heard, w.options.Drain)
}

func (w *arranging) rest(ctx context.Context) (rest []metav1.PartialObjectMetadata, err error) {
	marked := client.MatchingLabels{manifests.LabelCanary: canaryLabel(w.rollout), manifests.LabelApplication: w.rollout.Labels[manifests.LabelApplication]}
	for _, kind := range append([]metav1.TypeMeta{{APIVersion: "apps/v1", Kind: "Deployment"}}, bundleKinds()...) {
		list := &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: kind.APIVersion, Kind: kind.Kind + "List"}}
		if err := w.direct.List(ctx, list, client.InNamespace(w.rollout.Namespace), marked); err != nil {
			return nil, err
		}
		for _, object := range list.Items {
			object.TypeMeta = kind
			wanted := slices.ContainsFunc(w.canary, func(form *unstructured.Unstructured) bool {
				return form.GetKind() == kind.Kind && form.GetName() == object.Name
			})
			if !wanted && object.DeletionTimestamp == nil && ownedBy(&object, w.rollout) {
				rest = append(rest, object)
			}
		}
	}
	return rest, nil
}

// hashOf is the pod-template-hash of the newest pods of a Deployment.
func (r *arranging) hashOf(ctx context.Context, name string) (string, error) {
	deployment, newest, err := r.replicaSets(ctx, r.rollout.Namespace, name)
	if err != nil {
		return "", fmt.Errorf("deployment %s: %w", name, err)
	}
	if deployment.Status.ObservedGeneration < deployment.Generation {
		return "", fmt.Errorf("deployment %s: its controller has not looked at it: %w", name, errNotYet)
	}
	for _, set := range newest {
		if set.Annotations[annotationRevision] == deployment.Annotations[annotationRevision] && set.Labels[labelHash] != "" {
			return set.Labels[labelHash], nil
		}
	}
	return "", fmt.Errorf("deployment %s: its ReplicaSet: %w", name, errNotYet)
}
