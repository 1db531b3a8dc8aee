package rollout_test

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// endpoints are the pods that a Service sends to: how many of stable and of the canary.
func (b *bed) endpoints(service string) (stable, canary int) {
	b.Helper()
	var slices discoveryv1.EndpointSliceList
	if err := b.client.List(b.ctx, &slices, client.InNamespace(b.namespace), client.MatchingLabels{discoveryv1.LabelServiceName: service}); err != nil {
		b.Fatal(err)
	}
	for _, slice := range slices.Items {
		for _, e := range slice.Endpoints {
			switch {
			case e.TargetRef == nil || e.Conditions.Ready != nil && !*e.Conditions.Ready:
			case strings.HasPrefix(e.TargetRef.Name, "web-canary-"):
				canary++
			default:
				stable++
			}
		}
	}
	return stable, canary
}

// A Service that reaches no pods of the new version is not its pods' fault. It is a pause that says so, and a version that
// mends the Service gets on.
func TestWaitingForEndpointsEndsInAPause(t *testing.T) {
	b, _ := routed(t, "1", `{"canary": {"progressDeadline": "6s", "steps": [{"weight": 50}, {"pause": {"for": "1s"}}]}}`)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.withRoutes("v1", "one")))
	astray := strings.ReplaceAll(b.withRoutes("v2", "two"), "spec: {selector: {app: web}", "spec: {selector: {app: web, tier: none}")
	v2 := b.rollOut(minute, astray)
	b.eventually("it says what is missing", func() bool {
		status := b.rollout().Status
		return status.Phase == v1alpha1.PhasePaused && status.Target.Digest == v2.Digest && strings.Contains(status.Verdict.Message, "Service web-canary")
	})
	if v := b.rollout().Status.Verdict; v.Outcome != v1alpha1.VerdictInconclusive || v.Reason != "NotThereYet" {
		t.Errorf("verdict %+v", v)
	}
	b.steady("it stays paused", func() bool { return b.rollout().Status.Phase == v1alpha1.PhasePaused })
	if got := b.sends(); got != "web-stable 1" || b.sizes() != "4 of 4, 2" {
		t.Errorf("the Routes send to %s, %s pods", got, b.sizes())
	}
	v3 := b.rollOut(minute, b.withRoutes("v3", "three"))
	b.reaches(v1alpha1.PhaseHealthy, v3)
	b.alone()
}

// Where stable's Service reaches nothing anyway, the version that mends it does not wait for that.
func TestAVersionMendsTheService(t *testing.T) {
	b, _ := routed(t, "1", `{"canary": {"progressDeadline": "10s", "steps": [{"weight": 50}, {"pause": {"for": "1s"}}]}}`)
	astray := strings.ReplaceAll(b.withRoutes("v1", "one"), "spec: {selector: {app: web}", "spec: {selector: {app: web, tier: none}")
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, astray))
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.withRoutes("v2", "two")))
	b.alone()
	b.eventually("the Service reaches v2", func() bool { stable, _ := b.endpoints("web"); return stable == 4 })
}

// Who calls the Service itself gets to the canary's pods by their labels. Once it has failed that ends, before the pods do.
func TestAFailedCanaryLeavesTheServiceAtOnce(t *testing.T) {
	b, _ := routed(t, "9", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}, {"analysis": [`+failsAbove5+`]}]}}`)
	b.stop()
	b.drain = 6 * time.Second
	b.start()
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.withRoutes("v1", "one")))
	v2 := b.rollOut(minute, b.withRoutes("v2", "two"))
	b.waitsAt(1, v2, "4 of 4, 2")
	b.eventually("the Service reaches both", func() bool { stable, canary := b.endpoints("web"); return stable == 4 && canary == 2 })
	b.approve(1, v2)
	var failed time.Time
	b.eventually("the Service reaches stable alone", func() bool {
		if verdict := b.rollout().Status.Verdict; failed.IsZero() && verdict != nil && verdict.Outcome == v1alpha1.VerdictFail {
			failed = time.Now()
		}
		stable, canary := b.endpoints("web")
		return !failed.IsZero() && stable == 4 && canary == 0
	})
	t.Logf("out of the Service %s after the verdict", time.Since(failed).Round(10*time.Millisecond))
	var canary appsv1.Deployment
	if !b.named("web-canary", &canary) || canary.DeletionTimestamp != nil || canary.Status.AvailableReplicas != 2 {
		t.Errorf("the canary was taken away while gateways may still send to it: %+v", canary.Status)
	}
	b.reaches(v1alpha1.PhaseFailed, v2)
	b.alone()
	b.isQuiet()
	if stable, canary := b.endpoints("web"); len(b.selects("web")) != 1 || stable != 4 || canary != 0 {
		t.Errorf("in the end the Service selects %v and reaches %d and %d pods", b.selects("web"), stable, canary)
	}
}
