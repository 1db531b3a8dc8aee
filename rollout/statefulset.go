package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// byOrdinal says that the workload is a StatefulSet. It has one pod of each ordinal, so that no second version runs beside
// it: it takes a new one in itself, from the highest ordinal down.
func byOrdinal(rollout *v1alpha1.Rollout) bool {
	return rollout.Spec.WorkloadRef.Kind == "StatefulSet"
}

// isWorkload tells the workload from the other objects of a Bundle, which has one.
func isWorkload(object *unstructured.Unstructured) bool {
	return object.GetKind() == "Deployment" || object.GetKind() == "StatefulSet"
}

// ordinalsOf is the strategy of a StatefulSet.
func ordinalsOf(spec v1alpha1.Strategy) (*analysis.Batches, error) {
	if spec.Rolling == nil {
		return nil, errors.New("a StatefulSet has one pod of each ordinal, so that no version can run beside it: give rolling, with batches for a step at a time")
	}
	b, err := batchesOf(spec.Rolling)
	if err == nil {
		b.Ordinal = true
	}
	return b, err
}

// unfit says why a StatefulSet cannot be moved by ordinal, nil if it can.
func unfit(object *unstructured.Unstructured) error {
	if object.GetKind() != "StatefulSet" {
		return nil
	}
	kind, _, _ := unstructured.NestedString(object.Object, "spec", "updateStrategy", "type")
	partition, _, _ := unstructured.NestedInt64(object.Object, "spec", "updateStrategy", "rollingUpdate", "partition")
	switch {
	case kind != "" && kind != string(appsv1.RollingUpdateStatefulSetStrategyType):
		return refused{fmt.Errorf("spec.updateStrategy.type %s of the workload: with it nothing replaces pods one after the other (use RollingUpdate)", kind)}
	case partition > 0:
		return refused{errors.New("spec.updateStrategy.rollingUpdate.partition of the workload is the Rollout's (use strategy.rolling.batches)")}
	}
	return nil
}

// setOf reads a StatefulSet as a workload, whole or reduced.
func setOf(set *appsv1.StatefulSet) analysis.Workload {
	w := analysis.Workload{
		Knowledge: analysis.Present,
		Placed:    placedOn(set),
		Current:   set.Status.ObservedGeneration >= set.Generation,
		Wanted:    1,
		Replicas:  set.Status.Replicas,
		Updated:   set.Status.UpdatedReplicas,
		Available: set.Status.AvailableReplicas,
		Partition: partitionOf(set),
	}
	if set.Spec.Ordinals != nil {
		w.First = set.Spec.Ordinals.Start
	}
	if set.Spec.Replicas != nil {
		w.Wanted = *set.Spec.Replicas
	}
	return w
}

func partitionOf(set *appsv1.StatefulSet) int32 {
	if rolling := set.Spec.UpdateStrategy.RollingUpdate; rolling != nil && rolling.Partition != nil {
		return *rolling.Partition
	}
	return 0
}

// observeOwn looks at the workload that a Rollout names.
func observeOwn(ctx context.Context, reader client.Reader, rollout *v1alpha1.Rollout) analysis.Workload {
	if !byOrdinal(rollout) {
		return observeWorkload(ctx, reader, rollout.Namespace, rollout.Spec.WorkloadRef.Name)
	}
	var set appsv1.StatefulSet
	err := reader.Get(ctx, client.ObjectKey{Namespace: rollout.Namespace, Name: rollout.Spec.WorkloadRef.Name}, &set)
	switch {
	case apierrors.IsNotFound(err):
		return analysis.Workload{Knowledge: analysis.Absent}
	case err != nil:
		return analysis.Workload{Why: err.Error()}
	}
	return setOf(&set)
}

func (r *Reconciler) setOf(ctx context.Context, rollout *v1alpha1.Rollout) (*appsv1.StatefulSet, error) {
	set := &appsv1.StatefulSet{}
	err := r.direct.Get(ctx, client.ObjectKey{Namespace: rollout.Namespace, Name: rollout.Spec.WorkloadRef.Name}, set)
	if err == nil && set.Status.ObservedGeneration < set.Generation { // its revisions are those of before
		err = fmt.Errorf("statefulset %s: its controller has not looked at it: %w", set.Name, errNotYet)
	}
	return set, err
}

// evict deletes pods that keep a StatefulSet from going on: those of another version than it is to have, which are not
// ready. It looks again at each, and leaves alone what has changed since.
func (p *pass) evict(ctx context.Context, names []string) error {
	set, err := p.r.setOf(ctx, p.rollout)
	if errors.Is(err, errNotYet) {
		p.soon(retryAfter(err))
		return nil
	}
	if err != nil {
		return fmt.Errorf("statefulset %s: %w", p.rollout.Spec.WorkloadRef.Name, err)
	}
	evicted, err := p.r.evict(ctx, set, names)
	if len(evicted) > 0 {
		p.tell(analysis.Tell{Warning: true, Reason: EventEvicted, Message: evictedMessage(set, evicted)})
	}
	return err
}

// EventEvicted is the reason of the event about pods of a StatefulSet that were in the way of stable.
const EventEvicted = "PodsEvicted"

func evictedMessage(set *appsv1.StatefulSet, pods []string) string {
	return fmt.Sprintf("StatefulSet %s waits for pods of a version that is given up: deleted %s, which come anew from its template", set.Name, strings.Join(pods, ", "))
}

func (r *Reconciler) evict(ctx context.Context, set *appsv1.StatefulSet, names []string) (evicted []string, err error) {
	for _, name := range names {
		var pod corev1.Pod
		if err := r.direct.Get(ctx, client.ObjectKey{Namespace: set.Namespace, Name: name}, &pod); apierrors.IsNotFound(err) {
			continue
		} else if err != nil {
			return evicted, fmt.Errorf("pod %s: %w", name, err)
		}
		owner, revision := metav1.GetControllerOf(&pod), pod.Labels[appsv1.ControllerRevisionHashLabelKey]
		if owner == nil || owner.UID != set.UID || pod.DeletionTimestamp != nil || revision == set.Status.UpdateRevision || podOf(&pod, r.options.Now()).Ready {
			continue
		}
		err := r.client.Delete(ctx, &pod, client.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion})
		switch {
		case apierrors.IsNotFound(err), apierrors.IsConflict(err): // the next look shows what it is now
		case err != nil:
			return evicted, fmt.Errorf("pod %s: %w", name, err)
		default:
			evicted = append(evicted, name)
		}
	}
	return evicted, nil
}

// podNames are regular expressions for the names of the pods of the new version and of stable. In a StatefulSet names do not
// tell: there it is those that the partition, as it was arranged last, gives to either.
func podNames(rollout *v1alpha1.Rollout) (canary, stable string) {
	name := rollout.Spec.WorkloadRef.Name
	if !byOrdinal(rollout) {
		pods := func(deployment string) string {
			return strings.ReplaceAll(deployment, ".", "[.]") + "-[a-z0-9]+-[a-z0-9]+"
		}
		return pods(canaryName(rollout)), pods(name)
	}
	_, numbers, _ := strings.Cut(rollout.Status.AppliedBundle, ": ")
	var kept, taken, first int32
	if _, err := fmt.Sscanf(numbers, ordinalNumbers, &kept, &taken, &first); err != nil {
		return ordinalNames(name, 0, 0), strings.ReplaceAll(name, ".", "[.]") + "-[0-9]+"
	}
	return ordinalNames(name, first+kept, first+kept+taken), ordinalNames(name, first, first+kept)
}

// ordinalNumbers is the end of what arrangedAs says of a StatefulSet that takes a version in.
const ordinalNumbers = "%d and %d replicas from %d"

// ordinalNames is a regular expression for the names of pods from one ordinal up to before another.
func ordinalNames(set string, from, to int32) string {
	name := strings.ReplaceAll(set, ".", "[.]")
	if from >= to {
		return name + "-none"
	}
	var names []string
	for i := from; i < to; i++ {
		names = append(names, fmt.Sprintf("%s-%d", name, i))
	}
	return "(" + strings.Join(names, "|") + ")"
}

// settleOrdinals finishes a StatefulSet on stable, and then without copies of its configuration, which go with the Rollout:
// all pods that use one are replaced, for as long as the strategy's deadline.
func (r *Reconciler) settleOrdinals(ctx context.Context, rollout *v1alpha1.Rollout, o analysis.Observation) ([]v1alpha1.AppliedObject, error) {
	bundle := rollout.Status.Stable
	if bundle == nil {
		bundle = rollout.Status.Target
	}
	switch w := o.Workload; {
	case w.Knowledge == analysis.Unknown:
		return nil, fmt.Errorf("the workload could not be read: %s", w.Why)
	case w.Knowledge == analysis.Absent, bundle == nil:
		return rollout.Status.Applied, nil
	}
	if replicas, err := r.replicasOf(ctx, rollout, *bundle); err != nil {
		return nil, err
	} else if o.Size = o.Workload.Wanted; replicas != nil {
		o.Size = *replicas
	}
	placed := analysis.Placed{Bundle: bundle.Digest}
	if !alone(rollout) {
		if _, err := r.arrangeOrdinals(ctx, rollout, analysis.Arrangement{Stable: *bundle, Placed: placed, StableReplicas: o.Size}, o); err != nil {
			return nil, err
		}
		if err := r.replaced(ctx, rollout, true); err != nil {
			return nil, err
		}
		status := rollout.Status.DeepCopy()
		status.Course, status.AppliedBundle = nil, bundle.Digest
		if err := r.writeStatus(ctx, rollout, *status); err != nil {
			return nil, err
		}
	}
	applied, err := r.apply(ctx, rollout, *bundle, placed)
	if err != nil {
		return nil, err
	}
	return applied, r.replaced(ctx, rollout, false)
}

// replaced is errNotYet while a StatefulSet that is being deleted from a Rollout has pods of another template. With evict
// those are of a version that is given up, and do not hold it up.
func (r *Reconciler) replaced(ctx context.Context, rollout *v1alpha1.Rollout, evict bool) error {
	set, err := r.setOf(ctx, rollout)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	late := r.options.Now().Sub(rollout.DeletionTimestamp.Time) > rollout.Spec.Strategy.ProgressDeadline()
	if err != nil || setOf(set).Returned() || late {
		return nil
	}
	if pods, err := r.sorted(ctx, r.podsOfSet(ctx, rollout)); err == nil && evict {
		var names []string
		for _, pod := range pods.Old {
			if !pod.Ready {
				names = append(names, pod.Name)
			}
		}
		evicted, err := r.evict(ctx, set, names)
		if len(evicted) > 0 {
			r.options.Events.Event(rollout, corev1.EventTypeWarning, EventEvicted, evictedMessage(set, evicted))
		}
		if err != nil {
			return err
		}
	}
	ctrl.LoggerFrom(ctx).V(1).Info("waiting for the pods of a StatefulSet", "statefulset", set.Name)
	return fmt.Errorf("statefulset %s: its pods: %w", set.Name, errNotYet)
}
