package rollout

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
	"github.com/slipway-cd/slipway/rollout/analysis"
	"github.com/slipway-cd/slipway/rollout/gateway"
)

// observe looks at the workload of rollout through reader, and at what is beside it. What cannot be read is Unknown. An
// error says what a person has to change.
func (r *Reconciler) observe(ctx context.Context, reader client.Reader, rollout *v1alpha1.Rollout) (analysis.Observation, error) {
	strategy, err := strategyOf(rollout)
	o := analysis.Observation{
		Now:      r.options.Now(),
		Target:   rollout.Spec.Bundle,
		Deadline: rollout.Spec.Strategy.ProgressDeadline(),
		Workload: observeOwn(ctx, reader, rollout),
		Strategy: strategy,
		Canary:   analysis.Workload{Knowledge: analysis.Absent},
	}
	if err != nil || strategy == (analysis.Strategy{}) && alone(rollout) {
		return o, err
	}
	o.Approval, o.Order, o.Asked, o.Undo = approvalOf(rollout), orderOf(rollout), askedOf(rollout), undoOf(rollout)
	if byOrdinal(rollout) {
		o.Traffic.Knowledge = analysis.Absent
		o.Size, o.Scaled, err = r.size(ctx, reader, rollout, o)
		return o, err
	}
	o.Canary = observeWorkload(ctx, reader, rollout.Namespace, canaryName(rollout))
	o.Traffic, err = observeTraffic(ctx, reader, rollout)
	if err != nil {
		return o, err
	}
	o.Size, o.Scaled, err = r.size(ctx, reader, rollout, o)
	return o, err
}

// alone says that nothing was left beside the workload.
func alone(rollout *v1alpha1.Rollout) bool {
	return rollout.Status.Course == nil && !Beside(rollout)
}

// Beside says that another version runs beside the workload, or that what is left of it is being removed.
func Beside(rollout *v1alpha1.Rollout) bool {
	return strings.Contains(rollout.Status.AppliedBundle, " ") // see arrangedAs
}

func observeWorkload(ctx context.Context, reader client.Reader, namespace, name string) analysis.Workload {
	var deployment appsv1.Deployment
	err := reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &deployment)
	switch {
	case apierrors.IsNotFound(err):
		return analysis.Workload{Knowledge: analysis.Absent}
	case err != nil:
		return analysis.Workload{Why: err.Error()}
	}
	return workloadOf(&deployment)
}

// observeTraffic reads from Services and Routes what they were told: those that the strategy moves, and those that another
// strategy has moved before. Whether somebody else told them otherwise shows as drift. One that is gone sends nothing.
func observeTraffic(ctx context.Context, reader client.Reader, rollout *v1alpha1.Rollout) (analysis.Traffic, error) {
	var told []analysis.Traffic
	for _, ref := range append(plan.ServicesOf(rollout.Namespace, rollout.Spec), plan.RoutesOf(rollout.Namespace, rollout.Spec)...) {
		live, err := metadataOf(ctx, reader, ref, "v1")
		moved := ref.Kind == "Service" && rollout.Spec.Strategy.BlueGreen != nil || ref.Kind != "Service" && byRoutes(rollout)
		switch {
		case meta.IsNoMatchError(err):
			return analysis.Traffic{}, refused{fmt.Errorf("spec.routes: the cluster knows no %s (install the CRDs of the Gateway API, and a gateway)", ref.Kind)}
		case err != nil && !apierrors.IsNotFound(err):
			return analysis.Traffic{}, nil
		case moved || live.Annotations[manifests.AnnotationTraffic] != "":
			told = append(told, trafficFrom(live.Annotations[manifests.AnnotationTraffic]))
		}
	}
	if len(told) == 0 {
		return analysis.Traffic{Knowledge: analysis.Absent}, nil
	}
	most := slices.MaxFunc(told, func(a, b analysis.Traffic) int { return a.Weight - b.Weight })
	most.Knowledge = analysis.Present
	most.Mixed = slices.ContainsFunc(told, func(other analysis.Traffic) bool { return other.Weight != most.Weight || other.Header != most.Header })
	return most, nil
}

// trafficFrom reads AnnotationTraffic. Without it nothing was moved.
func trafficFrom(said string) (t analysis.Traffic) {
	weight, header, _ := strings.Cut(said, " ")
	t.Weight, _ = strconv.Atoi(weight)
	t.Header.Name, t.Header.Value, _ = strings.Cut(header, "=")
	return t
}

// trafficInto is what trafficFrom reads.
func trafficInto(a analysis.Arrangement) string {
	if a.Header == (analysis.Header{}) {
		return strconv.Itoa(a.Weight)
	}
	return fmt.Sprintf("%d %s=%s", a.Weight, a.Header.Name, a.Header.Value)
}

// approvalOf reads a person's yes; what cannot be read is none.
func approvalOf(rollout *v1alpha1.Rollout) *analysis.Approval {
	var said v1alpha1.StepApproval
	if json.Unmarshal([]byte(rollout.Annotations[manifests.AnnotationApproved]), &said) != nil {
		return nil
	}
	return &analysis.Approval{Bundle: said.Bundle, Step: said.Step, At: said.Answers.Add(1)} // a moment after what it answers
}

// orderOf reads what a person wants for a while; what cannot be read, and what has no reason, is nothing.
func orderOf(rollout *v1alpha1.Rollout) *analysis.Order {
	var given v1alpha1.RolloutOrder
	if json.Unmarshal([]byte(rollout.Annotations[manifests.AnnotationOrder]), &given) != nil || given.Reason == "" {
		return nil
	}
	until := given.Until
	if latest := given.At.Add(v1alpha1.LongestOrder); until.After(latest) {
		until = latest
	}
	return &analysis.Order{
		Bundle: given.Bundle, Abort: given.Abort, Until: until,
		Why: fmt.Sprintf("%s, by %s until %s", given.Reason, given.By, until.UTC().Format(time.RFC3339)),
	}
}

// workloadOf reads a Deployment, whole or reduced.
func workloadOf(deployment *appsv1.Deployment) analysis.Workload {
	w := analysis.Workload{
		Knowledge: analysis.Present,
		Placed:    placedOn(deployment),
		Current:   deployment.Status.ObservedGeneration >= deployment.Generation,
		Paused:    deployment.Spec.Paused,
		Wanted:    1,
		Replicas:  deployment.Status.Replicas,
		Updated:   deployment.Status.UpdatedReplicas,
		Available: deployment.Status.AvailableReplicas,
	}
	if deployment.Spec.Replicas != nil {
		w.Wanted = *deployment.Spec.Replicas
	}
	for _, c := range deployment.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			w.Creation = c.Message
		}
	}
	return w
}

func placedOn(object metav1.Object) analysis.Placed {
	annotations := object.GetAnnotations()
	return analysis.Placed{Bundle: annotations[manifests.AnnotationBundle], Failed: annotations[manifests.AnnotationFailedBundle]}
}

// drift is an object that is not as it was applied.
type drift struct {
	ref manifests.Ref
	why string // for people
}

// drifted compares what was applied with what reader has. An object that cannot
// be read is not drifted: its state is unknown. It is complete when all that is
// wanted (see arrangedAs) was applied and written down.
func (r *Reconciler) drifted(ctx context.Context, reader client.Reader, rollout *v1alpha1.Rollout, want string) (drifts []drift, complete bool) {
	if rollout.Status.AppliedBundle != want {
		return nil, false
	}
	for _, applied := range rollout.Status.Applied {
		ref := manifests.Ref{Group: applied.Group, Kind: applied.Kind, Namespace: rollout.Namespace, Name: applied.Name}
		live, err := metadataOf(ctx, reader, ref, applied.Version)
		switch {
		case apierrors.IsNotFound(err):
			drifts = append(drifts, drift{ref, "it was deleted"})
		case err != nil:
		case live.DeletionTimestamp != nil:
		case !asApplied(&live, applied, want):
			drifts = append(drifts, drift{ref, "it was changed by " + lastManager(&live)})
		}
	}
	return drifts, true
}

// asApplied says that nobody took one of our fields.
func asApplied(live metav1.Object, applied v1alpha1.AppliedObject, want string) bool {
	fields, ours := plan.FieldsDigest(live.GetManagedFields(), manifests.RolloutManager)
	bundle := live.GetAnnotations()[manifests.AnnotationBundle]
	return ours && string(fields) == applied.Fields && bundle != "" && strings.Contains(want, bundle)
}

// lastManager is who changed an object last, other than the rollout loop and by way
// of a status, and which of the spec's fields are that manager's now.
func lastManager(live metav1.Object) string {
	var last metav1.ManagedFieldsEntry
	for _, e := range live.GetManagedFields() {
		if e.Manager != manifests.RolloutManager && e.Subresource == "" && e.Time != nil && (last.Time == nil || !e.Time.Before(last.Time)) {
			last = e
		}
	}
	if last.Manager == "" {
		return "somebody"
	}
	if fields := specFields(last); fields != "" {
		return fmt.Sprintf("%q, which now owns %s", last.Manager, fields)
	}
	return fmt.Sprintf("%q", last.Manager)
}

// namedFields is how many fields an event names.
const namedFields = 3

// specFields names the fields of an entry outside of metadata.
func specFields(e metav1.ManagedFieldsEntry) string {
	fields := &fieldpath.Set{}
	if e.FieldsV1 == nil || fields.FromJSON(e.FieldsV1.GetRawReader()) != nil {
		return ""
	}
	var names []string
	more := 0
	fields.Leaves().Iterate(func(path fieldpath.Path) {
		switch name := strings.TrimPrefix(path.String(), "."); {
		case strings.HasPrefix(name, "metadata."):
		case len(names) < namedFields:
			names = append(names, name)
		default:
			more++
		}
	})
	if more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// metadataOf reads metadata; a workload whole from the cache, which has no other form of it.
func metadataOf(ctx context.Context, reader client.Reader, ref manifests.Ref, version string) (metav1.ObjectMeta, error) {
	key := client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}
	if ref.Group == appsv1.GroupName && ref.Kind == "Deployment" {
		var deployment appsv1.Deployment
		err := reader.Get(ctx, key, &deployment)
		return deployment.ObjectMeta, err
	}
	if ref.Group == appsv1.GroupName && ref.Kind == "StatefulSet" {
		var set appsv1.StatefulSet
		err := reader.Get(ctx, key, &set)
		return set.ObjectMeta, err
	}
	if ref.Group == gateway.Group {
		version = routeVersion // there is one watch, whichever version stands in Git
	}
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(schema.GroupVersionKind{Group: ref.Group, Version: version, Kind: ref.Kind})
	err := reader.Get(ctx, key, object)
	return object.ObjectMeta, err
}
