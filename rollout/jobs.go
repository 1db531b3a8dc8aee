package rollout

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// trials are the Rollouts of which no Job is left, true, or may be. Of what is not there nothing is known: the agent has
// just started.
type trials struct {
	sync.Mutex
	swept map[types.NamespacedName]bool
}

func (t *trials) note(rollout types.NamespacedName, swept bool) {
	t.Lock()
	defer t.Unlock()
	if t.swept == nil {
		t.swept = map[types.NamespacedName]bool{}
	}
	t.swept[rollout] = swept
}

func (t *trials) isSwept(rollout types.NamespacedName) (swept, known bool) {
	t.Lock()
	defer t.Unlock()
	swept, known = t.swept[rollout]
	return swept, known
}

func (t *trials) forget(rollout types.NamespacedName) {
	t.Lock()
	defer t.Unlock()
	delete(t.swept, rollout)
}

// jobName is that of the Job of one look: the one that is due at that time. Whoever asks again for the same look, after a
// restart, finds the same Job. It does not look like a name that a Deployment would give to a pod.
func jobName(rollout *v1alpha1.Rollout, metric string, due time.Time) string {
	of := strings.Join([]string{string(rollout.UID), rollout.Spec.Bundle.Digest, metric, strconv.FormatInt(due.UnixNano(), 10)}, "\n")
	return "slipway-check-" + manifests.DigestOf([]byte(of)).Short()
}

// lookByJob looks for how the Job of one look has ended, and starts it when there is none. A look has to be on record
// before its Job is started: else another one would be started for the same look after a restart.
func (r *Reconciler) lookByJob(ctx context.Context, rollout *v1alpha1.Rollout, check *v1alpha1.MetricCheck, due time.Time, recorded bool) (look analysis.Look, err error) {
	name := jobName(rollout, check.Name, due)
	var job batchv1.Job
	err = r.direct.Get(ctx, client.ObjectKey{Namespace: rollout.Namespace, Name: name}, &job)
	switch {
	case apierrors.IsNotFound(err) && !recorded:
		return analysis.Look{Pending: true}, nil
	case apierrors.IsNotFound(err):
		return analysis.Look{Pending: true}, r.startJob(ctx, rollout, check, name)
	case err != nil:
		return look, fmt.Errorf("job %s: %w", name, err)
	case !ownedBy(&job, rollout):
		return look, fmt.Errorf("job %s: it is not the Rollout's (delete it)", name)
	}
	r.trials.note(keyOf(rollout), false)
	trial, err := r.outcomeOf(ctx, &job)
	switch age := r.options.Now().Sub(job.CreationTimestamp.Time); {
	case err != nil || trial != nil:
		return analysis.Look{Trial: trial}, err
	case age >= check.Job.Timeout.Duration:
		return look, fmt.Errorf("job %s has neither completed nor failed within %s", name, check.Job.Timeout.Duration)
	}
	return analysis.Look{Pending: true}, nil
}

func (r *Reconciler) startJob(ctx context.Context, rollout *v1alpha1.Rollout, check *v1alpha1.MetricCheck, name string) error {
	job, err := jobOf(rollout, check, name)
	if err != nil {
		return err
	}
	if err := r.keepsApart(ctx, rollout, job.Spec.Template.Labels); err != nil {
		return fmt.Errorf("job of metric %s: %w", check.Name, err)
	}
	r.trials.note(keyOf(rollout), false)
	err = r.client.Create(ctx, job, client.FieldOwner(manifests.RolloutManager))
	if err != nil && !apierrors.IsAlreadyExists(err) { // who was there first is looked at next time
		return fmt.Errorf("job of metric %s cannot be created: %w", check.Name, err)
	}
	return nil
}

// keepsApart refuses pods that would be taken for those of the workload, or get traffic that is meant for these.
func (r *Reconciler) keepsApart(ctx context.Context, rollout *v1alpha1.Rollout, pods map[string]string) error {
	selector, err := r.selectorOf(ctx, rollout)
	if err != nil {
		return err
	}
	if selector.Matches(labels.Set(pods)) {
		return errors.New("its pods have the labels of the workload's (give them others)")
	}
	for _, ref := range rollout.Spec.Services {
		var service corev1.Service
		if err := r.direct.Get(ctx, client.ObjectKey{Namespace: rollout.Namespace, Name: ref.Name}, &service); err != nil {
			return fmt.Errorf("service %s: %w", ref.Name, err)
		}
		delete(service.Spec.Selector, labelHash) // it is pinned for a while
		if len(service.Spec.Selector) > 0 && labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pods)) {
			return fmt.Errorf("its pods have the labels by which Service %s finds pods (give them others)", ref.Name)
		}
	}
	return nil
}

// selectorOf selects the pods of the workload.
func (r *Reconciler) selectorOf(ctx context.Context, rollout *v1alpha1.Rollout) (labels.Selector, error) {
	key := client.ObjectKey{Namespace: rollout.Namespace, Name: rollout.Spec.WorkloadRef.Name}
	var deployment appsv1.Deployment
	if !byOrdinal(rollout) {
		err := r.direct.Get(ctx, key, &deployment)
		if err != nil {
			return nil, err
		}
		return metav1.LabelSelectorAsSelector(deployment.Spec.Selector)
	}
	var set appsv1.StatefulSet
	if err := r.direct.Get(ctx, key, &set); err != nil {
		return nil, err
	}
	return metav1.LabelSelectorAsSelector(set.Spec.Selector)
}

// outcomeOf is how a Job ended, nil while it has not. An error means that it ended for reasons which say nothing about the
// version that was tried.
func (r *Reconciler) outcomeOf(ctx context.Context, job *batchv1.Job) (*analysis.Trial, error) {
	for _, c := range job.Status.Conditions {
		switch {
		case c.Status != corev1.ConditionTrue:
		case c.Type == batchv1.JobComplete:
			return &analysis.Trial{Well: true, Said: "Job " + job.Name + " completed"}, nil
		case c.Type == batchv1.JobFailed && c.Reason == batchv1.JobReasonDeadlineExceeded:
			return nil, fmt.Errorf("job %s was ended by its deadline (%s)", job.Name, c.Message)
		case c.Type == batchv1.JobFailed:
			return r.faultOf(ctx, job, c.Message)
		}
	}
	return nil, nil
}

// faultOf finds a program among a failed Job's pods that ended with an error by itself.
func (r *Reconciler) faultOf(ctx context.Context, job *batchv1.Job, message string) (*analysis.Trial, error) {
	var pods corev1.PodList
	if err := r.direct.List(ctx, &pods, client.InNamespace(job.Namespace), client.MatchingLabels{batchv1.JobNameLabel: job.Name}, client.Limit(maxPods)); err != nil {
		return nil, fmt.Errorf("job %s failed, and its pods cannot be read: %w", job.Name, err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if owner := metav1.GetControllerOf(pod); owner == nil || owner.UID != job.UID || disrupted(pod) {
			continue
		}
		for _, status := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
			ended := status.State.Terminated
			if ended != nil && ended.ExitCode != 0 && ended.Reason != "OOMKilled" {
				said := exitOf(status.Name, &corev1.ContainerStateTerminated{ExitCode: ended.ExitCode, Reason: ended.Reason}) // without what the program wrote
				return &analysis.Trial{Said: fmt.Sprintf("Job %s: %s", job.Name, said)}, nil
			}
		}
	}
	return nil, fmt.Errorf("job %s failed, and none of its programs did (%s)", job.Name, message)
}

// disrupted says that somebody else ended a pod: its node, the scheduler, an eviction.
func disrupted(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return pod.DeletionTimestamp != nil || pod.Status.Reason != ""
}

// sweep deletes the Jobs whose look is on record, and those that nobody waits for any more; keep are the others, by name.
// Where an agent dies before, the Jobs' own time to live ends them.
func (r *Reconciler) sweep(ctx context.Context, rollout *v1alpha1.Rollout, keep map[string]bool) error {
	swept, known := r.trials.isSwept(keyOf(rollout))
	if swept || !known && !tries(rollout.Spec.Strategy) {
		return nil
	}
	jobs := &metav1.PartialObjectMetadataList{}
	jobs.SetGroupVersionKind(batchv1.SchemeGroupVersion.WithKind("JobList"))
	if err := r.direct.List(ctx, jobs, client.InNamespace(rollout.Namespace), client.MatchingLabels{manifests.LabelCheck: labelValue(rollout.Name)}); err != nil {
		return fmt.Errorf("jobs of checks: %w", err)
	}
	left := false
	for i := range jobs.Items {
		job := &jobs.Items[i]
		job.SetGroupVersionKind(batchv1.SchemeGroupVersion.WithKind("Job"))
		switch {
		case !ownedBy(job, rollout):
		case keep[job.Name]:
			left = true
		case job.DeletionTimestamp == nil:
			err := r.client.Delete(ctx, job, client.Preconditions{UID: &job.UID}, client.PropagationPolicy(metav1.DeletePropagationBackground))
			if client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("job %s: %w", job.Name, err)
			}
		}
	}
	r.trials.note(keyOf(rollout), !left)
	return nil
}

// tries says that a strategy runs Jobs.
func tries(strategy v1alpha1.Strategy) bool {
	for _, check := range checksOf(strategy) {
		if check.Job != nil {
			return true
		}
	}
	return false
}

// waitsFor notes the Jobs of looks that are pending.
func (p *pass) waitsFor(due analysis.Measure) {
	p.jobs = map[string]bool{}
	for i, name := range due.Names {
		if p.o.Looks[name].Pending {
			p.jobs[jobName(p.rollout, name, due.Due[i])] = true
		}
	}
}
