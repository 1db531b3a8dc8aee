package apps

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// web is a file with a workload that comes in by a canary which waits for a person; more is a line of its container.
func (s story) web(more string) gitsource.Change {
	return s.file("web.yaml", fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, %s}]}
---
apiVersion: slipway.dev/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  workloadRef: {name: web}
  strategy: {canary: {progressDeadline: 1m, steps: [{weight: 50}, {pause: {}}]}}
`, more))
}

// rollout is the Rollout as it is; nil before it is there.
func (s story) rollout() *v1alpha1.Rollout {
	s.Helper()
	var live v1alpha1.Rollout
	if err := shared.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.name, Name: "web"}, &live); err != nil {
		s.must(client.IgnoreNotFound(err))
		return nil
	}
	return &live
}

// bundle is the digest of what the Rollout was asked for.
func (s story) bundle() string {
	if live := s.rollout(); live != nil && live.Spec.Bundle != nil {
		return live.Spec.Bundle.Digest
	}
	return ""
}

// serving waits for done, and lets the pods of web run meanwhile, as a kubelet would.
func (s story) serving(done func() error) {
	s.Helper()
	pods := shared.clients.CoreV1().Pods(s.name)
	s.eventually(func() error {
		list, err := pods.List(s.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		for i := range list.Items {
			pod := &list.Items[i]
			if pod.Status.Phase == corev1.PodRunning || pod.DeletionTimestamp != nil {
				continue
			}
			pod.Status.Phase = corev1.PodRunning
			pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
				Name: "web", Image: "web", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
			}}
			if _, err := pods.UpdateStatus(s.Context(), pod, metav1.UpdateOptions{}); err != nil {
				return err
			}
		}
		return done()
	})
}

// waits waits until the Application says that it waits for something.
func (s story) waits(what string) func() error {
	return func() error { return saying(s.Context(), s.name, v1alpha1.ReasonProgressing, what) }
}

// approve says yes to what the Rollout waits at.
func (s story) approve() {
	s.Helper()
	live := s.rollout()
	said, err := json.Marshal(v1alpha1.StepApproval{
		Bundle: live.Status.Target.Digest, Step: int(live.Status.Course.Step), Answers: live.Status.Course.Since.Time, At: time.Now(), By: "robin",
	})
	s.must(err)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{manifests.AnnotationApproved: string(said)}}})
	s.must(err)
	s.must(shared.Kube.Patch(s.Context(), live, client.RawPatch(types.MergePatchType, patch)))
}

// ran lists what is on record of hooks, oldest first.
func (s story) ran() (all []string) {
	s.Helper()
	app, err := shared.Application(s.Context(), s.name)
	s.must(err)
	for _, run := range slices.Backward(app.Status.Hooks) {
		all = append(all, run.Name+" "+run.Outcome)
	}
	return all
}

// A Rollout begins when the hooks before it have ended, and those after it run when it has passed: a migration is done before
// the first pod of a version that needs it, and is not taken back with it.
func TestHooksAroundARollout(t *testing.T) {
	s := tell(t, "hooked", "  environment: production\n")
	hooks := []gitsource.Change{s.job("migrate", "slipway.dev/hook: pre-apply", ""), s.job("check", "slipway.dev/hook: post-apply", "")}
	s.commit("First version", append(hooks, s.web("env: [{name: A, value: one}]"))...)
	s.pod("migrate")
	if s.rollout() != nil {
		t.Fatal("the Rollout is there before the hook has ended")
	}
	s.end("migrate", 0)
	s.serving(s.waits("waiting for the post-apply hook batch/Job hooked/check"))
	s.end("check", 0)
	s.ready()
	first, checked := s.bundle(), s.uid("check")

	// Before: the Rollout is not asked for the new version while the hook runs. After: not while the canary waits for a person.
	s.commit("Second version", s.web("env: [{name: A, value: two}]"))
	s.pod("migrate")
	if s.bundle() != first {
		t.Fatal("the Rollout has the new version before the hook has ended")
	}
	s.end("migrate", 0)
	s.serving(func() error {
		if c := s.rollout().Status.Course; c == nil || c.Step != 1 || c.Weight != 50 {
			return fmt.Errorf("course: %+v", c)
		}
		return nil
	})
	s.says(v1alpha1.ReasonProgressing, "Rollout")
	if got := s.ran(); s.uid("check") != checked || strings.Join(got, ", ") != "migrate Succeeded, check Succeeded, migrate Succeeded" {
		t.Errorf("while the canary waits hooks ran: %q", got)
	}
	s.approve()
	s.serving(s.waits("waiting for the post-apply hook batch/Job hooked/check"))
	if live := s.rollout(); live.Status.Phase != v1alpha1.PhaseHealthy || live.Status.Stable.Digest == first {
		t.Errorf("the hook after it runs while the Rollout is %s", live.Status.Phase)
	}
	s.end("check", 0)
	s.ready()
	second := s.bundle()

	// A hook before that fails: no Rollout begins, and Git goes back without running any.
	bad := s.commit("Third version", s.web("env: [{name: A, value: three}]"))
	s.end("migrate", 1)
	s.reverted(bad)
	s.ready()
	if live := s.rollout(); s.bundle() != second || live.Status.Target.Digest != second || live.Status.Phase != v1alpha1.PhaseHealthy {
		t.Errorf("a Rollout has begun: %+v", live.Status)
	}
	if got := s.ran(); len(got) != 4 {
		t.Errorf("the revert ran hooks: %q", got)
	}

	// What cannot be taken back stays in Git when the version that needed it fails; traffic stays with stable.
	last := s.commit("Fourth version\n\nSlipway-Irreversible: true\n", s.web("resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}"))
	s.end("migrate", 0)
	s.says(v1alpha1.ReasonMarked, "Slipway-Irreversible")
	if commits, err := shared.Log(s.Context(), 20); err != nil || slices.ContainsFunc(commits, func(c gitsource.Commit) bool { return strings.Contains(c.Message, "Slipway-Reverts: "+string(last)) }) {
		t.Errorf("what cannot be taken back was taken back, or %v", err)
	}
	live := s.rollout()
	judged := live.Status.Verdict != nil && live.Status.Verdict.Reason == "RejectedByAPIServer"
	past := slices.ContainsFunc(live.Status.History, func(past v1alpha1.PastBundle) bool { return past.Failed }) // stable is asked for again by now
	if !judged && !past || live.Status.Stable.Digest != second {
		t.Errorf("status %+v", live.Status)
	}
	if got := s.ran(); len(got) != 5 || got[4] != "migrate Succeeded" {
		t.Errorf("on record: %q", got)
	}
}

// reverted waits until Git has taken a commit back.
func (s story) reverted(bad gitsource.ObjectID) {
	s.Helper()
	s.eventually(func() error {
		commits, err := shared.Log(s.Context(), 20)
		if err != nil {
			return err
		}
		for _, commit := range commits {
			if strings.Contains(commit.Message, "Slipway-Reverts: "+string(bad)) {
				return nil
			}
		}
		return fmt.Errorf("%s is not reverted", bad.Short())
	})
}
