package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// Bounds of what is told of pods.
const (
	symptomPods    = 3
	symptomParts   = 3
	symptomEvents  = 5
	symptomLines   = 5
	symptomLine    = 160 // bytes
	symptomMessage = 240
	mostSecrets    = 20 // of one pod
	mostEvents     = 500
)

// witness adds to a Fail that was found in this moment what the version's pods say. That it cannot be had is no reason to
// wait: the Verdict stands without. Afterwards would be too late: once traffic returns they go, and what they say with them.
func (r *Reconciler) witness(ctx context.Context, rollout *v1alpha1.Rollout, before, next analysis.State) {
	v := next.Verdict
	if v == nil || v.Outcome != v1alpha1.VerdictFail || before.Verdict != nil && before.Verdict.Outcome == v1alpha1.VerdictFail && before.Target.Digest == next.Target.Digest {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.options.Patience, fmt.Errorf("no answer within %s", r.options.Patience))
	defer cancel()
	if v.Evidence == nil {
		v.Evidence = &v1alpha1.Evidence{}
	}
	v.Evidence.Pods = r.symptoms(ctx, rollout, next.Course)
}

// symptoms are the pods of the new version that are not well, as far as that is known in time.
func (r *Reconciler) symptoms(ctx context.Context, rollout *v1alpha1.Rollout, course analysis.Course) (told []v1alpha1.PodEvidence) {
	pods, err := r.newPods(ctx, rollout, course)
	if err != nil {
		return nil
	}
	pods = slices.DeleteFunc(pods, well)
	slices.SortStableFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(cmp.Compare(restarts(&b), restarts(&a)), cmp.Compare(a.Name, b.Name))
	})
	pods = pods[:min(len(pods), symptomPods)]
	if len(pods) == 0 {
		return nil
	}
	warnings := r.warnings(ctx, rollout.Namespace)
	for i := range pods {
		pod := &pods[i]
		mask, err := r.maskOf(ctx, pod)
		told = append(told, symptomsOf(pod, warnings[pod.Name], mask, err))
	}
	return told
}

// newPods are those of the version that comes in.
func (r *Reconciler) newPods(ctx context.Context, rollout *v1alpha1.Rollout, course analysis.Course) ([]corev1.Pod, error) {
	if course.Canary != nil && !course.Promoting && !byOrdinal(rollout) {
		var list corev1.PodList
		marked := client.MatchingLabels{manifests.LabelCanary: canaryLabel(rollout)}
		err := r.direct.List(ctx, &list, client.InNamespace(rollout.Namespace), marked, client.Limit(maxPods))
		return list.Items, err
	}
	l := r.podsOf(ctx, rollout)
	return slices.DeleteFunc(l.pods, func(pod corev1.Pod) bool {
		isNew, ours := l.tell(&pod)
		return !isNew || !ours
	}), l.err
}

// well says that a pod is ready and has never crashed.
func well(pod corev1.Pod) bool {
	ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	return ready && restarts(&pod) == 0
}

func restarts(pod *corev1.Pod) (most int32) {
	for _, status := range containersOf(pod) {
		most = max(most, status.RestartCount)
	}
	return most
}

func containersOf(pod *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

// warnings are the Events of type Warning on pods of a namespace, by pod, newest first.
func (r *Reconciler) warnings(ctx context.Context, namespace string) map[string][]corev1.Event {
	var list corev1.EventList
	fields := client.MatchingFields{"type": corev1.EventTypeWarning, "involvedObject.kind": "Pod"}
	if r.direct.List(ctx, &list, client.InNamespace(namespace), fields, client.Limit(mostEvents)) != nil {
		return nil
	}
	slices.SortStableFunc(list.Items, func(a, b corev1.Event) int { return happened(&b).Compare(happened(&a)) })
	of := map[string][]corev1.Event{}
	for _, event := range list.Items {
		of[event.InvolvedObject.Name] = append(of[event.InvolvedObject.Name], event)
	}
	return of
}

// happened is the last time of an event, in whichever way it was written.
func happened(event *corev1.Event) time.Time {
	switch {
	case event.Series != nil && !event.Series.LastObservedTime.IsZero():
		return event.Series.LastObservedTime.Time
	case !event.LastTimestamp.IsZero():
		return event.LastTimestamp.Time
	}
	return event.EventTime.Time
}

// symptomsOf is what one pod says. Text that a program has written is left out when it is not known what is secret in it.
func symptomsOf(pod *corev1.Pod, events []corev1.Event, mask policy.Mask, unknown error) v1alpha1.PodEvidence {
	told := v1alpha1.PodEvidence{Name: pod.Name, Reason: analysis.Clean(pod.Status.Reason, symptomLine)}
	for _, status := range containersOf(pod) {
		if c, ill := symptomOf(status, mask, unknown); ill && len(told.Containers) < symptomParts {
			told.Containers = append(told.Containers, c)
		}
	}
	for i := range events[:min(len(events), symptomEvents)] {
		event := &events[i]
		one := v1alpha1.EventEvidence{
			At: metav1.Time{Time: happened(event).Truncate(time.Second)}, Reason: analysis.Clean(event.Reason, symptomLine), Count: event.Count,
			Message: analysis.Clean(shown(event.Message, mask, unknown), symptomMessage),
		}
		told.Events = append(told.Events, one)
	}
	return told
}

func symptomOf(status corev1.ContainerStatus, mask policy.Mask, unknown error) (told v1alpha1.ContainerEvidence, ill bool) {
	told = v1alpha1.ContainerEvidence{Name: status.Name, Restarts: status.RestartCount}
	if waiting := status.State.Waiting; waiting != nil && waiting.Reason != "ContainerCreating" && waiting.Reason != "PodInitializing" {
		told.Waiting, ill = analysis.Clean(waiting.Reason, symptomLine), true
	}
	ended := status.State.Terminated
	if ended == nil {
		ended = status.LastTerminationState.Terminated
	}
	if ended == nil || ended.ExitCode == 0 && !ill {
		return told, ill
	}
	told.ExitCode, told.Reason = &ended.ExitCode, analysis.Clean(ended.Reason, symptomLine)
	told.Last = lastLines(shown(ended.Message, mask, unknown))
	return told, true
}

// lastLines are those of a text that say something.
func lastLines(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if line = analysis.Clean(line, symptomLine); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-symptomLines):]
}

// shown is text without the values of Secrets. Where those are not known it is not shown at all.
func shown(text string, mask policy.Mask, unknown error) string {
	switch {
	case text == "":
		return ""
	case unknown != nil:
		return "(not shown: what is secret in it is not known)"
	}
	return mask.Clean(text)
}

// errManySecrets is that a pod refers to more than are read.
var errManySecrets = errors.New("it refers to too many Secrets")

// maskOf knows the values of the Secrets that a pod refers to, as they are now.
func (r *Reconciler) maskOf(ctx context.Context, pod *corev1.Pod) (policy.Mask, error) {
	names := secretsOf(&pod.Spec)
	if len(names) > mostSecrets {
		return policy.Mask{}, errManySecrets
	}
	var values []policy.Secret
	for _, name := range names {
		var secret corev1.Secret
		err := r.direct.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: name}, &secret)
		if client.IgnoreNotFound(err) != nil {
			return policy.Mask{}, fmt.Errorf("secret %s: %w", name, err)
		}
		if apierrors.IsNotFound(err) {
			continue
		}
		for _, value := range secret.Data {
			values = append(values, policy.NewSecret(string(value)))
		}
	}
	return policy.NewMask(values), nil
}

// secretsOf are the names of the Secrets that pods of a spec can read by what it says.
func secretsOf(spec *corev1.PodSpec) (names []string) {
	use := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, volume := range spec.Volumes {
		if volume.Secret != nil {
			use(volume.Secret.SecretName)
		}
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.Secret != nil {
				use(source.Secret.Name)
			}
		}
	}
	for _, container := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, source := range container.EnvFrom {
			if source.SecretRef != nil {
				use(source.SecretRef.Name)
			}
		}
		for _, variable := range container.Env {
			if variable.ValueFrom != nil && variable.ValueFrom.SecretKeyRef != nil {
				use(variable.ValueFrom.SecretKeyRef.Name)
			}
		}
	}
	return names
}

// censor takes the values of Secrets out of what the containers of a pod have left behind, and bounds it: that becomes part
// of a Verdict's message.
func (r *Reconciler) censor(ctx context.Context, pod *corev1.Pod) {
	var mask policy.Mask
	var unknown error
	known := false
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			for _, ended := range []*corev1.ContainerStateTerminated{list[i].State.Terminated, list[i].LastTerminationState.Terminated} {
				if ended == nil || ended.Message == "" {
					continue
				}
				if !known {
					mask, unknown = r.maskOf(ctx, pod)
					known = true
				}
				ended.Message = strings.Join(lastLines(shown(ended.Message, mask, unknown)), " | ")
			}
		}
	}
}
