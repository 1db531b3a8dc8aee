package rollout_test

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func TestBatchesReplacePodsStepByStep(t *testing.T) {
	b, asked := measured(t, "1", `{"rolling": {"progressDeadline": "1m", "batches": [
		{"percent": 25, "pause": {}}, {"percent": 50, "pause": {"for": "1s"}, "analysis": [`+failsAbove5+`]}]}}`)
	v1 := b.rollOut(minute, b.configured(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	image := b.image("v2", "ready")
	v2 := b.rollOut(minute, b.configured(image, "two"))
	b.waitsAt(1, v2, "3 of 3, 1")
	b.isQuiet()
	if got := b.reachedBy("web"); got != "v1:true v2:true" || len(b.selects("web")) != 1 {
		t.Errorf("the Service selects %v and sends to %s", b.selects("web"), got)
	}
	b.stop()
	b.approve(1, v2)
	b.start()
	began := time.Now()
	web := b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()
	b.isQuiet()
	if took := time.Since(began); took < time.Second {
		t.Errorf("the pause of a second took %s", took)
	}
	if want := `load{pod=~"web-canary-[a-z0-9]+-[a-z0-9]+"}[1s]`; asked.asked.Load() != want {
		t.Errorf("asked for %s, want %s", asked.asked.Load(), want)
	}
	if b.runs() != image || b.sizes() != "4 of 4, 0" || b.greets("web") != "two" || web.Status.Course != nil {
		t.Errorf("runs %s with %s pods and %s; status %+v", b.runs(), b.sizes(), b.greets("web"), web.Status)
	}
}

func TestBatchThatFailsReturns(t *testing.T) {
	b, load := measured(t, "1", `{"rolling": {"progressDeadline": "4s", "batches": [{"percent": 50, "pause": {"for": "1s"}, "analysis": [`+failsAbove5+`]}]}}`)
	good := b.image("v1", "ready")
	v1 := b.rollOut(minute, b.configured(good, "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	pods := b.pods()

	v2 := b.rollOut(minute, b.configured(b.image("v2", "never-ready"), "two"))
	b.eventually("two pods of the new version come", func() bool {
		var canary appsv1.Deployment
		return b.named("web-canary", &canary) && canary.Status.Replicas == 2
	})
	b.failsAndReturns(v2, good, "NeverReady")
	if got := b.pods(); len(got) != 4 || got[0] != pods[0] || got[3] != pods[3] {
		t.Errorf("pods %q, and before %q: stable gives none up for pods that never come", got, pods)
	}

	load.answer.Store("9")
	v3 := b.rollOut(minute, b.configured(b.image("v3", "ready"), "three"))
	b.failsAndReturns(v3, good, "MetricOutOfRange")
	b.applyRollout(minute, &v1) // the revert
	b.reaches(v1alpha1.PhaseHealthy, v1)
}

// failsAndReturns waits until bundle has failed for that reason and stable is all there is.
func (b *bed) failsAndReturns(bundle v1alpha1.BundleRef, stable, reason string) {
	b.Helper()
	web := b.reaches(v1alpha1.PhaseFailed, bundle)
	b.alone()
	b.isQuiet()
	if verdict := web.Status.Verdict; verdict.Outcome != v1alpha1.VerdictFail || verdict.Reason != reason || verdict.Bundle != bundle.Digest {
		b.Errorf("verdict %+v", verdict)
	}
	if b.runs() != stable || b.sizes() != "4 of 4, 0" || b.deployment().Annotations[manifests.AnnotationFailedBundle] != bundle.Digest {
		b.Errorf("runs %s with %s pods, annotations %v", b.runs(), b.sizes(), b.deployment().Annotations)
	}
}

func TestRefusesBatchesThatMakeNoSense(t *testing.T) {
	for message, strategy := range map[string]string{
		"batches must grow": `{"rolling": {"batches": [{"percent": 50}, {"percent": 50}]}}`,
		"batch 1: metric":   `{"rolling": {"batches": [{"percent": 50, "analysis": [{"name": "load", "range": {"query": "{{canry}}", "max": 5}}]}]}}`,
	} {
		t.Run(message, func(t *testing.T) {
			b, _ := measured(t, "1", strategy)
			b.applyRollout(minute, nil)
			b.eventually("it says what is wrong", func() bool { return b.stalls(message) })
			b.isQuiet()
		})
	}
}

// stalls says that the Rollout waits for a person to change it, and says so.
func (b *bed) stalls(message string) bool {
	b.Helper()
	for _, c := range b.rollout().Status.Conditions {
		if c.Type == v1alpha1.ConditionStalled && strings.Contains(c.Message, message) {
			return true
		}
	}
	return false
}
