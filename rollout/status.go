package rollout

import (
	"context"
	"fmt"
	"time"

	"github.com/fluxcd/pkg/runtime/conditions"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// Reasons of conditions that only this loop gives; v1alpha1 has the others.
const (
	reasonNoBundle  = "NoBundle"
	reasonReturning = "ReturningToStable"
)

// statusFor returns the status that says state; rollout stays as it is.
func statusFor(rollout *v1alpha1.Rollout, state analysis.State, refusal *analysis.Refusal, now time.Time) v1alpha1.RolloutStatus {
	updated := rollout.DeepCopy()
	state.Into(&updated.Status)
	updated.Status.ObservedGeneration = rollout.Generation
	ready, reconciling, stalled := conditionsFor(state)
	if refusal != nil && stalled == nil && (!refusal.Waits || state.Phase == v1alpha1.PhaseReturning) {
		message := "cannot be applied: " + refusal.Message
		reconciling = &metav1.Condition{Type: v1alpha1.ConditionReconciling, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonApplyFailed, Message: message}
		if state.Phase == v1alpha1.PhaseHealthy {
			ready = metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonApplyFailed, Message: message}
		}
	}
	for kind, condition := range map[string]*metav1.Condition{
		v1alpha1.ConditionReady: &ready, v1alpha1.ConditionReconciling: reconciling, v1alpha1.ConditionStalled: stalled,
	} {
		if condition == nil {
			conditions.Delete(updated, kind)
			continue
		}
		condition.LastTransitionTime = metav1.Time{Time: now.Truncate(time.Second)}
		if old := conditions.Get(updated, kind); old != nil && old.Status == condition.Status && old.Reason == condition.Reason && old.Message == condition.Message {
			condition.LastTransitionTime = old.LastTransitionTime
		}
		conditions.Set(updated, condition)
	}
	return updated.Status
}

// conditionsFor describes state; messages change with it and not with every pod.
func conditionsFor(state analysis.State) (ready metav1.Condition, reconciling, stalled *metav1.Condition) {
	condition := func(kind string, status metav1.ConditionStatus, reason, format string, args ...any) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
	target, stable, verdict := bundleName(state.Target), bundleName(state.Stable), v1alpha1.Verdict{}
	if state.Verdict != nil {
		verdict = *state.Verdict
	}
	switch state.Phase {
	case v1alpha1.PhaseProgressing:
		at := ""
		if state.Course.Canary != nil {
			at = fmt.Sprintf(", at step %d with %d%% of traffic", state.Course.Step+1, state.Course.Weight)
		}
		for _, hook := range state.Course.Called {
			if !hook.Yes && hook.Said != "" {
				at += fmt.Sprintf(", waits for webhook %s: %s", hook.Name, hook.Said)
			}
		}
		ready = condition(v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonProgressing, "%s comes in since %s%s", target, state.StartedAt.UTC().Format(time.RFC3339), at)
		c := condition(v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonProgressing, "%s comes in%s", target, at)
		reconciling = &c
	case v1alpha1.PhaseReturning:
		ready = condition(v1alpha1.ConditionReady, metav1.ConditionFalse, verdict.Reason, "%s failed: %s", target, verdict.Message)
		c := condition(v1alpha1.ConditionReconciling, metav1.ConditionTrue, reasonReturning, "returning to %s", stable)
		reconciling = &c
	case v1alpha1.PhaseFailed:
		ready = condition(v1alpha1.ConditionReady, metav1.ConditionFalse, verdict.Reason, "%s failed: %s", target, verdict.Message)
		c := condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, verdict.Reason, "%s is not applied again (roll out another version)", target)
		stalled = &c
	case v1alpha1.PhasePaused:
		ready = condition(v1alpha1.ConditionReady, metav1.ConditionUnknown, verdict.Reason, "%s waits: %s", target, verdict.Message)
		c := condition(v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonPaused, "%s", verdict.Message)
		reconciling = &c
	case v1alpha1.PhaseHealthy:
		ready = condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "%s passed: %s", target, verdict.Message)
	default:
		ready = condition(v1alpha1.ConditionReady, metav1.ConditionUnknown, reasonNoBundle, "there is nothing to roll out yet")
	}
	return ready, reconciling, stalled
}

func bundleName(bundle *v1alpha1.BundleRef) string {
	if bundle == nil {
		return "no Bundle"
	}
	return "Bundle " + bundle.Name
}

// writeStatus sends what differs in one request. It is refused when somebody
// else has written the status since it was read; changes of anything else are no reason to lose a Verdict.
func (r *Reconciler) writeStatus(ctx context.Context, rollout *v1alpha1.Rollout, status v1alpha1.RolloutStatus) error {
	if equality.Semantic.DeepEqual(rollout.Status, status) {
		return nil
	}
	for tries := 1; ; tries++ {
		updated := rollout.DeepCopy()
		updated.Status = status
		patch := client.MergeFromWithOptions(rollout, client.MergeFromWithOptimisticLock{})
		err := r.client.Status().Patch(ctx, updated, patch, client.FieldOwner(manifests.RolloutManager))
		if err == nil {
			*rollout = *updated
			return nil
		}
		var newest v1alpha1.Rollout
		if !apierrors.IsConflict(err) || tries == 3 || r.direct.Get(ctx, client.ObjectKeyFromObject(rollout), &newest) != nil ||
			newest.UID != rollout.UID || !equality.Semantic.DeepEqual(newest.Status, rollout.Status) {
			return fmt.Errorf("status of Rollout %s/%s: %w", rollout.Namespace, rollout.Name, err)
		}
		newest.DeepCopyInto(rollout)
	}
}

// statusRefused says that a Rollout cannot be worked on until a person changes it.
func statusRefused(rollout *v1alpha1.Rollout, message string, now time.Time) v1alpha1.RolloutStatus {
	updated := rollout.DeepCopy()
	updated.Status.ObservedGeneration = rollout.Generation
	conditions.Delete(updated, v1alpha1.ConditionReconciling)
	for kind, status := range map[string]metav1.ConditionStatus{v1alpha1.ConditionReady: metav1.ConditionFalse, v1alpha1.ConditionStalled: metav1.ConditionTrue} {
		c := metav1.Condition{Type: kind, Status: status, Reason: v1alpha1.ReasonRefused, Message: message, LastTransitionTime: metav1.Time{Time: now.Truncate(time.Second)}}
		if old := conditions.Get(updated, kind); old != nil && old.Message == message && old.Status == status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		conditions.Set(updated, &c)
	}
	return updated.Status
}
