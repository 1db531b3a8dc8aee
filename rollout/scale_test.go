package rollout_test

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const shrinks = `{"canary": {"progressDeadline": "1m", "dynamicStableScale": true, "steps": [
	{"weight": 25}, {"pause": {}}, {"weight": 75}, {"pause": {}}, {"analysis": [` + failsAbove5 + `]}]}}`

// served is the share of traffic that stable has by the Route, and the pods that are there for it: those that were available
// at the latest a moment after.
func (b *bed) served() (weight, available int) {
	b.Helper()
	switch got := b.sends(); got {
	case "web 1", "web-stable 1":
		weight = 100
	case "web-canary 1":
	default:
		if _, err := fmt.Sscanf(got, "web-stable %d,", &weight); err != nil {
			return 0, 0 // the Routes are being written
		}
	}
	return weight, int(b.deployment().Status.AvailableReplicas)
}

func TestStableShrinksAsTrafficLeavesIt(t *testing.T) {
	b, load := routed(t, "1", shrinks)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.withRoutes("v1", "one")))
	v2 := b.rollOut(minute, b.withRoutes("v2", "two"))
	b.waitsAt(1, v2, "3 of 3, 1")
	b.approve(1, v2)
	b.waitsAt(3, v2, "1 of 1, 3")
	b.isQuiet()
	b.approve(3, v2)
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()
	if b.sizes() != "4 of 4, 0" || b.runs() != b.imageName("v2") {
		t.Errorf("in the end there are %s pods of %s", b.sizes(), b.runs())
	}

	// A version fails, and there is room for six pods only: stable grows as the canary goes, and neither waits for the other.
	v3 := b.rollOut(minute, b.withRoutes("v3", "three"))
	b.waitsAt(1, v3, "3 of 3, 1")
	b.approve(1, v3)
	b.waitsAt(3, v3, "1 of 1, 3")
	b.create(&corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "pods", Namespace: b.namespace},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("6")}},
	})
	b.eventually("the quota counts", func() bool {
		var quota corev1.ResourceQuota
		b.named("pods", &quota)
		return quota.Status.Used.Pods().Value() == 4
	})
	load.answer.Store("9")
	b.approve(3, v3)
	steps := map[int]bool{}
	b.eventually("traffic returns", func() bool {
		weight, available := b.served()
		if steps[weight] = true; 100*available < 4*weight {
			t.Errorf("stable has %d%% of traffic and %d of 4 pods", weight, available)
		}
		return b.rollout().Status.Phase == v1alpha1.PhaseFailed
	})
	b.alone()
	if b.sizes() != "4 of 4, 0" || b.runs() != b.imageName("v2") || b.sends() != "web 1" || !steps[75] {
		t.Errorf("in the end there are %s pods of %s, Routes send to %s; on the way stable had %v", b.sizes(), b.runs(), b.sends(), steps)
	}
}

func TestStableDoesNotShrinkBesideAnAutoscaler(t *testing.T) {
	b, _ := routed(t, "1", shrinks)
	b.autoscaler(1)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, elastic(b.withRoutes("v1", "one"))))
	b.scale(4)
	v2 := b.rollOut(minute, elastic(b.withRoutes("v2", "two")))
	b.waitsAt(1, v2, "4 of 4, 1")
	b.approve(1, v2)
	b.waitsAt(3, v2, "4 of 4, 3")
	if !b.wasTold("Warning StableKeepsItsSize", "an autoscaler says") {
		t.Errorf("nobody is told: %q", b.tellings())
	}
	b.leavesTheNumber()
}

// A newer version in the middle comes beside a stable that is small, and stable's pods come back first.
func TestNewerVersionWhileStableIsSmall(t *testing.T) {
	b, _ := routed(t, "1", shrinks)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.withRoutes("v1", "one")))
	v2 := b.rollOut(minute, b.withRoutes("v2", "two"))
	b.waitsAt(1, v2, "3 of 3, 1")
	b.approve(1, v2)
	b.waitsAt(3, v2, "1 of 1, 3")
	v3 := b.rollOut(minute, b.withRoutes("v3", "three"))
	b.eventually("v3 is where v2 was", func() bool {
		if weight, available := b.served(); 100*available < 4*weight {
			t.Errorf("stable has %d%% of traffic and %d of 4 pods", weight, available)
		}
		var canary appsv1.Deployment
		course := b.rollout().Status.Course
		return course != nil && course.Canary != nil && course.Canary.Digest == v3.Digest && course.Step == 1 && b.named("web-canary", &canary) && b.sizes() == "3 of 3, 1"
	})
}
