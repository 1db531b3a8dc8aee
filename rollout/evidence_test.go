package rollout_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout"
)

// crashed writes into the status of a pod of the canary that it has crashed, with that message, and an Event that says more.
func (b *bed) crashed(message, event string) string {
	b.Helper()
	var pods corev1.PodList
	if err := b.client.List(b.ctx, &pods, client.InNamespace(b.namespace), client.HasLabels{manifests.LabelCanary}); err != nil {
		b.Fatal(err)
	}
	if len(pods.Items) == 0 {
		b.Fatal("the canary has no pods")
	}
	pod := &pods.Items[0]
	base := pod.DeepCopy()
	for i := range pod.Status.ContainerStatuses {
		pod.Status.ContainerStatuses[i].RestartCount = 2
		pod.Status.ContainerStatuses[i].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error", Message: message}
	}
	if err := b.client.Status().Patch(b.ctx, pod, client.MergeFrom(base)); err != nil {
		b.Fatal(err)
	}
	b.create(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "crashed", Namespace: b.namespace},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: b.namespace, Name: pod.Name, UID: pod.UID},
		Type:           corev1.EventTypeWarning, Reason: "Unhealthy", Message: event, Count: 4, LastTimestamp: metav1.Now(),
	})
	return pod.Name
}

// What a version failed by, what traffic it had and what its pods said is in the Verdict, and no value of a Secret is.
func TestVerdictCarriesTheEvidence(t *testing.T) {
	b, load := measured(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 25}, {"pause": {}}, {"weight": 50}, {"analysis": [`+failsAbove5+`]}]}}`)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.configured(b.image("v1", "ready"), "one")))
	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	b.waitsAt(1, v2, "3 of 3, 1")
	long := strings.Repeat("x", 4000)
	pod := b.crashed("starting\n\x1b[31mcannot log in with of-two\x07\n"+long+"\n", "probe failed: password of-two \u202e is wrong "+long)
	load.answer.Store("9")
	b.approve(1, v2)
	web := b.reaches(v1alpha1.PhaseFailed, v2)

	e := web.Status.Verdict.Evidence
	if e == nil || e.Started == nil || len(e.Metrics) != 1 || len(e.Pods) != 1 {
		t.Fatalf("evidence %+v", e)
	}
	m := e.Metrics[0]
	if m.Name != "load" || m.Outcome != v1alpha1.VerdictFail || m.Limit.Max != "5" || m.Said != "9" || m.Failed != 1 || m.Since == nil ||
		len(m.Queries) != 1 || m.Queries[0] != `load{pod=~"web-canary-[a-z0-9]+-[a-z0-9]+"}[1s]` {
		t.Errorf("metric %+v", m)
	}
	var trail []string
	for _, p := range e.Trail {
		trail = append(trail, fmt.Sprintf("%s %d %d%%", p.What, p.Step, p.Weight))
	}
	if got, want := strings.Join(trail, ", "), "Started 0 0%, Weight 0 25%, Pause 1 25%, Weight 2 25%, Weight 2 50%, Analysis 3 50%, Failed 3 50%"; got != want {
		t.Errorf("trail\n%s, want\n%s", got, want)
	}
	p := e.Pods[0]
	if p.Name != pod || len(p.Containers) != 1 || *p.Containers[0].ExitCode != 3 || p.Containers[0].Restarts != 2 || len(p.Events) != 1 || p.Events[0].Count != 4 {
		t.Errorf("pod %+v", p)
	}
	if last := p.Containers[0].Last; len(last) != 3 || last[1] != "[31mcannot log in with [secret]" || len(last[2]) > 160 {
		t.Errorf("last lines %q", last)
	}
	text, err := json.Marshal(web)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "of-two") || strings.Contains(string(text), "u202e") || len(text) > 32<<10 {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

// While a version is judged people see what its metrics ask and want.
func TestMetricsOfACourse(t *testing.T) {
	b, _ := measured(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 25}, {"pause": {}}], "analysis": [`+failsAbove5+`]}}`)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.configured(b.image("v1", "ready"), "one")))
	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	b.waitsAt(1, v2, "3 of 3, 1")
	b.eventually("it was measured", func() bool {
		metrics := rollout.Metrics(b.rollout())
		return len(metrics) == 1 && metrics[0].Name == "load" && metrics[0].Said == "1" && metrics[0].Limit.Max == "5" && metrics[0].Passed > 0
	})
	if trail := b.rollout().Status.Course.Trail; len(trail) != 3 || trail[2].What != "Pause" || time.Since(trail[2].At.Time) > minute {
		t.Errorf("trail %+v", trail)
	}
}
