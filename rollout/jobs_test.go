package rollout_test

import (
	"fmt"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// trying is a strategy with a step that runs Jobs.
func trying(b *bed, behaviour, timeout, labels string) {
	b.Helper()
	image := b.image("job", behaviour)
	b.strategy = map[string]any{"canary": map[string]any{"progressDeadline": "30s", "steps": []any{
		map[string]any{"weight": 50},
		map[string]any{"analysis": []any{map[string]any{
			"name": "smoke", "interval": "1s", "count": 2, "consecutiveErrorLimit": 0,
			"job": map[string]any{"timeout": timeout, "template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"team": "shop"}},
				"spec": map[string]any{"template": map[string]any{
					"metadata": map[string]any{"labels": map[string]any{labels: "web"}},
					"spec":     map[string]any{"containers": []any{map[string]any{"name": "smoke", "image": image}}},
				}},
			}},
		}}},
	}}}
}

// runsJobs is a bed whose canary is tried by a Job.
func runsJobs(t *testing.T, behaviour, timeout, labels string) (b *bed, v2 v1alpha1.BundleRef) {
	t.Helper()
	b = newBed(t)
	b.stop()
	trying(b, behaviour, timeout, labels)
	b.start()
	v1 := b.rollOut(minute, b.configured(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	return b, b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
}

func (b *bed) jobs() []batchv1.Job {
	b.Helper()
	var list batchv1.JobList
	if err := b.client.List(b.ctx, &list, client.InNamespace(b.namespace), client.MatchingLabels{manifests.LabelCheck: "web"}); err != nil {
		b.Fatal(err)
	}
	return list.Items
}

// tries waits for a pod of a Job that is not among known, and returns it.
func (b *bed) tries(known map[string]bool) *corev1.Pod {
	b.Helper()
	var found *corev1.Pod
	b.eventually("a Job runs", func() bool {
		var list corev1.PodList
		if err := b.client.List(b.ctx, &list, client.InNamespace(b.namespace), client.MatchingLabels{manifests.LabelCheck: "web"}); err != nil {
			b.Fatal(err)
		}
		for i := range list.Items {
			pod := &list.Items[i]
			if !known[pod.Name] && pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
				found = pod
			}
		}
		return found != nil
	})
	known[found.Name] = true
	return found
}

// ends plays the kubelet: the pod's program ends with that code, for a reason of the pod where there is one.
func (b *bed) ends(pod *corev1.Pod, code int32, reason string) {
	b.Helper()
	ended := pod.DeepCopy()
	ended.Status.Phase, ended.Status.Reason = corev1.PodSucceeded, reason
	if code != 0 {
		ended.Status.Phase = corev1.PodFailed
	}
	for i := range ended.Status.ContainerStatuses {
		ended.Status.ContainerStatuses[i].Ready = false
		ended.Status.ContainerStatuses[i].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: code, Reason: "Error", Message: hiddenToken, StartedAt: metav1.Now(), FinishedAt: metav1.Now(),
		}}
	}
	if err := b.client.Status().Patch(b.ctx, ended, client.MergeFrom(pod)); err != nil {
		b.Fatal(err)
	}
}

// Two Jobs complete, each is started once although the agent restarts meanwhile, and none is left.
func TestCanaryPassesByJobs(t *testing.T) {
	b, v2 := runsJobs(t, "never-ready", "10m", "app.kubernetes.io/name")
	known := map[string]bool{}
	first := b.tries(known)
	b.stop()
	b.start()
	b.steady("the first Job is the only one", func() bool { return len(b.jobs()) == 1 })
	job := b.jobs()[0]
	env := map[string]string{}
	for _, e := range first.Spec.Containers[0].Env {
		env[e.Name] = e.Value
	}
	if env["SLIPWAY_CANARY"] != "web-canary" || env["SLIPWAY_STABLE"] != "web" || env["SLIPWAY_BUNDLE"] != v2.Digest || env["SLIPWAY_METRIC"] != "smoke" ||
		env["SLIPWAY_REVISION"] != "commit" || env["SLIPWAY_NAMESPACE"] != b.namespace || env["SLIPWAY_ROLLOUT"] != "web" {
		t.Errorf("environment %v", env)
	}
	if job.Labels["team"] != "shop" || job.Labels[manifests.LabelApplication] != "" || *job.Spec.BackoffLimit != 0 || job.OwnerReferences[0].Kind != "Rollout" {
		t.Errorf("%+v", job.ObjectMeta)
	}
	b.ends(first, 0, "")
	second := b.tries(known)
	if ran := b.jobs(); len(ran) > 2 {
		t.Errorf("%d Jobs", len(ran))
	}
	b.ends(second, 0, "")
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.eventually("no Job is left", func() bool { return len(b.jobs()) == 0 })
	b.isQuiet()
}

func TestWhatJobsSay(t *testing.T) {
	for name, c := range map[string]struct {
		behaviour, timeout, labels string
		code                       int32 // of the program; zero leaves it to the Job
		reason                     string
		phase                      v1alpha1.RolloutPhase
		want                       []string
	}{
		"completes":      {"ready", "10m", "app.kubernetes.io/name", 0, "", v1alpha1.PhaseHealthy, nil},
		"fails":          {"never-ready", "10m", "app.kubernetes.io/name", 3, "", v1alpha1.PhaseFailed, []string{"Fail JobFailed", "container smoke ended with exit code 3 (Error)"}},
		"is evicted":     {"never-ready", "10m", "app.kubernetes.io/name", 137, "Evicted", v1alpha1.PhasePaused, []string{"Inconclusive MetricsUnavailable", "none of its programs did"}},
		"does not end":   {"never-ready", "2s", "app.kubernetes.io/name", 0, "", v1alpha1.PhasePaused, []string{"Inconclusive MetricsUnavailable", "neither completed nor failed within 2s"}},
		"looks like web": {"ready", "10m", "app", 0, "", v1alpha1.PhasePaused, []string{"Inconclusive MetricsUnavailable", "labels of the workload's"}},
	} {
		t.Run(name, func(t *testing.T) {
			b, v2 := runsJobs(t, c.behaviour, c.timeout, c.labels)
			if c.code != 0 {
				b.ends(b.tries(map[string]bool{}), c.code, c.reason)
			}
			web := b.reaches(c.phase, v2)
			verdict := web.Status.Verdict
			for _, word := range c.want {
				if text := fmt.Sprintf("%s %s %s", verdict.Outcome, verdict.Reason, verdict.Message); !strings.Contains(text, word) {
					t.Errorf("verdict %s, want %s", text, word)
				}
			}
			b.keepsSecrets()
			if c.phase != v1alpha1.PhasePaused {
				b.eventually("no Job is left", func() bool { return len(b.jobs()) == 0 })
				b.isQuiet()
			}
		})
	}
}
