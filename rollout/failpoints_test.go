package rollout_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout"
)

// dies waits until the loop was killed at a point, once more.
func (b *bed) dies(point string, act func()) {
	b.Helper()
	kills := b.kills.Load()
	b.failpoint.Store(point)
	act()
	b.eventually("it is killed at "+point, func() bool { return b.kills.Load() == kills+1 })
	b.stop()
}

// Who is killed each time before anything is written down leaves nothing that nobody looks for.
func TestNothingIsLeftByKills(t *testing.T) {
	b, _ := routed(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}]}}`)
	v1 := b.rollOut(minute, b.withRoutes("v1", "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	b.dies(rollout.FailpointCanary, func() { b.rollOut(minute, b.withRoutes("v2", "two")) })
	b.applyRollout(minute, &v1) // a person takes it back
	b.dies(rollout.FailpointRemoved, b.start)
	b.eventually("the canary is gone", func() bool { return !b.named("web-canary", &appsv1.Deployment{}) })
	b.start()
	b.reaches(v1alpha1.PhaseHealthy, v1)
	b.alone()
	b.isQuiet()
	if got := b.sends(); got != "web 1" || b.runs() != b.imageName("v1") {
		t.Errorf("the Routes send to %s, %s runs", got, b.runs())
	}
}
