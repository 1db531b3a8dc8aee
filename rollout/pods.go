package rollout

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// maxPods bounds how many pods are looked at: enough to tell whose fault it is.
const maxPods = 500

// annotationRevision numbers the ReplicaSets of a Deployment; the Deployment has that of its newest.
const annotationRevision = "deployment.kubernetes.io/revision"

// inspect lists the pods that course is about from the API server: new and old ones of the workload, or those of the
// canary and those of stable.
func (r *Reconciler) inspect(ctx context.Context, rollout *v1alpha1.Rollout, course analysis.Course) *analysis.Pods {
	pods, err := r.sorted(ctx, r.podsOf(ctx, rollout))
	if err != nil {
		return &analysis.Pods{Unknown: err.Error()}
	}
	if byOrdinal(rollout) || course.Canary == nil || course.Promoting {
		return pods
	}
	beside, err := r.sorted(ctx, r.podsOfDeployment(ctx, rollout.Namespace, canaryName(rollout)))
	if err != nil {
		return &analysis.Pods{Unknown: err.Error()}
	}
	return &analysis.Pods{New: beside.New, Old: append(pods.New, pods.Old...)}
}

// listed are the pods that a workload selects, and how to tell them apart.
type listed struct {
	pods []corev1.Pod
	// tell says whether a pod has the newest template, and whether it is the workload's at all.
	tell func(*corev1.Pod) (isNew, ours bool)
	err  error
}

// podsOf lists the pods of the workload that a Rollout names.
func (r *Reconciler) podsOf(ctx context.Context, rollout *v1alpha1.Rollout) listed {
	if byOrdinal(rollout) {
		return r.podsOfSet(ctx, rollout)
	}
	return r.podsOfDeployment(ctx, rollout.Namespace, rollout.Spec.WorkloadRef.Name)
}

func (r *Reconciler) podsOfDeployment(ctx context.Context, namespace, name string) listed {
	deployment, sets, err := r.replicaSets(ctx, namespace, name)
	if err != nil {
		return listed{err: err}
	}
	newest := map[types.UID]bool{} // by ReplicaSet of this Deployment
	for _, set := range sets {
		newest[set.UID] = set.Annotations[annotationRevision] == deployment.Annotations[annotationRevision]
	}
	pods, err := r.selected(ctx, namespace, deployment.Spec.Selector)
	return listed{pods, func(pod *corev1.Pod) (isNew, ours bool) {
		if owner := metav1.GetControllerOf(pod); owner != nil {
			isNew, ours = newest[owner.UID]
		}
		return isNew, ours
	}, err}
}

func (r *Reconciler) podsOfSet(ctx context.Context, rollout *v1alpha1.Rollout) listed {
	set, err := r.setOf(ctx, rollout)
	if err != nil {
		return listed{err: err}
	}
	pods, err := r.selected(ctx, set.Namespace, set.Spec.Selector)
	return listed{pods, func(pod *corev1.Pod) (isNew, ours bool) {
		owner := metav1.GetControllerOf(pod)
		return pod.Labels[appsv1.ControllerRevisionHashLabelKey] == set.Status.UpdateRevision, owner != nil && owner.UID == set.UID
	}, err}
}

func (r *Reconciler) selected(ctx context.Context, namespace string, by *metav1.LabelSelector) ([]corev1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(by)
	if err != nil {
		return nil, fmt.Errorf("spec.selector: %w", err)
	}
	var list corev1.PodList
	err = r.direct.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector}, client.Limit(maxPods))
	return list.Items, err
}

// sorted are new and old pods of a workload, without those that are going.
func (r *Reconciler) sorted(ctx context.Context, l listed) (*analysis.Pods, error) {
	pods, nodes := &analysis.Pods{}, map[string]bool{}
	for i := range l.pods {
		pod := &l.pods[i]
		isNew, ours := l.tell(pod)
		if !ours || pod.DeletionTimestamp != nil {
			continue
		}
		r.censor(ctx, pod)
		seen := podOf(pod, r.options.Now())
		if !seen.Ready && seen.Scheduled {
			seen.NodeNotReady = r.nodeNotReady(ctx, pod.Spec.NodeName, nodes)
		}
		if isNew {
			pods.New = append(pods.New, seen)
		} else {
			pods.Old = append(pods.Old, seen)
		}
	}
	return pods, l.err
}

// replicaSets reads a Deployment and the metadata of its ReplicaSets.
func (r *Reconciler) replicaSets(ctx context.Context, namespace, name string) (*appsv1.Deployment, []metav1.PartialObjectMetadata, error) {
	deployment := &appsv1.Deployment{}
	if err := r.direct.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, deployment); err != nil {
		return nil, nil, err
	}
	selector, err := metav1.LabelSelectorAsSelector(deployment.Spec.Selector)
	if err != nil {
		return nil, nil, fmt.Errorf("spec.selector: %w", err)
	}
	sets := &metav1.PartialObjectMetadataList{}
	sets.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("ReplicaSetList"))
	if err := r.direct.List(ctx, sets, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, nil, err
	}
	return deployment, slices.DeleteFunc(sets.Items, func(set metav1.PartialObjectMetadata) bool {
		owner := metav1.GetControllerOf(&set)
		return owner == nil || owner.UID != deployment.UID
	}), nil
}

// nodeNotReady asks for each node once. A node that cannot be read may be
// unready: that must not become the version's fault.
func (r *Reconciler) nodeNotReady(ctx context.Context, name string, known map[string]bool) bool {
	if answer, is := known[name]; is {
		return answer
	}
	var node corev1.Node
	notReady := true
	err := r.direct.Get(ctx, client.ObjectKey{Name: name}, &node)
	if apierrors.IsForbidden(err) {
		notReady = false // nodes are none of our business here; the pod speaks for itself
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			notReady = c.Status != corev1.ConditionTrue
		}
	}
	known[name] = notReady
	return notReady
}

// podOf reads what matters of a pod.
func podOf(pod *corev1.Pod, now time.Time) analysis.Pod {
	p := analysis.Pod{Name: pod.Name, Scheduled: pod.Spec.NodeName != "", Reason: pod.Status.Reason, Message: pod.Status.Message}
	for _, c := range pod.Status.Conditions {
		switch c.Type {
		case corev1.PodReady:
			p.Ready = c.Status == corev1.ConditionTrue
		case corev1.PodScheduled:
			if c.Status == corev1.ConditionFalse {
				p.Reason, p.Message = c.Reason, c.Message
			}
		}
	}
	for _, status := range pod.Status.InitContainerStatuses {
		readContainer(&p, status)
	}
	var last time.Time
	running := len(pod.Status.ContainerStatuses) == len(pod.Spec.Containers)
	for _, status := range pod.Status.ContainerStatuses {
		readContainer(&p, status)
		if status.State.Running == nil {
			running = false
		} else if at := status.State.Running.StartedAt.Time; at.After(last) {
			last = at
		}
	}
	if running {
		p.Running = now.Sub(last)
	}
	return p
}

// readContainer adds what one container tells. The first reason stands.
func readContainer(p *analysis.Pod, status corev1.ContainerStatus) {
	p.Restarts = max(p.Restarts, status.RestartCount)
	ended := status.LastTerminationState.Terminated
	if now := status.State.Terminated; now != nil && now.ExitCode != 0 {
		p.Exited, ended = true, now
	}
	waiting := status.State.Waiting
	switch {
	case p.Reason != "":
	case waiting != nil && waiting.Reason == "CrashLoopBackOff" && ended != nil:
		p.Reason, p.Message = waiting.Reason, exitOf(status.Name, ended)
	case waiting != nil && waiting.Reason != "ContainerCreating" && waiting.Reason != "PodInitializing":
		p.Reason, p.Message = waiting.Reason, waiting.Message
	case p.Exited:
		p.Reason, p.Message = ended.Reason, exitOf(status.Name, ended)
	case p.Message == "" && ended != nil && ended.ExitCode != 0: // it runs again, for as long as that lasts
		p.Message = exitOf(status.Name, ended)
	}
}

func exitOf(container string, ended *corev1.ContainerStateTerminated) string {
	text := fmt.Sprintf("container %s ended with exit code %d (%s)", container, ended.ExitCode, cmp.Or(ended.Reason, "no reason given"))
	if ended.Message != "" {
		text += ": " + ended.Message
	}
	return text
}
