package courses

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// looked fails unless the Rollout is at an analysis, counted from one, that has had an answer.
func (s story) looked(step int) error {
	if err := s.at(step, v1alpha1.PhaseProgressing); err != nil {
		return err
	}
	rollout, err := s.rollout()
	if err != nil {
		return err
	}
	tallies := rollout.Status.Course.Tallies
	if len(tallies) != 1 || !strings.Contains(tallies[0].State, `"passed":`) {
		return fmt.Errorf("%s has not looked: %+v", s.name, tallies)
	}
	return nil
}

// gives is the canary's weight in the Route.
func (s story) gives() (int64, error) {
	live := &unstructured.Unstructured{}
	live.SetAPIVersion("gateway.networking.k8s.io/v1")
	live.SetKind("HTTPRoute")
	err := shared.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.name, Name: "web"}, live)
	weight, _ := canaryOf(live)
	return weight, err
}

// keeps holds that the Route gives the canary what it had.
func (s story) keeps(weight int64) {
	s.Helper()
	if got, err := s.gives(); err != nil || got != weight {
		s.Errorf("%s: the canary has %d%% and not %d%%, %v", s.name, got, weight, err)
	}
}

// back waits until stable has all traffic and is alone, whatever Git says.
func (s story) back() {
	s.Helper()
	s.eventually(func() error {
		return errors.Join(shared.Deployment(s.Context(), s.name, "web", shared.good), s.alone(), s.asInGit())
	})
}

const (
	routesCompared = `{canary: {progressDeadline: $DEADLINE, steps: [{weight: 25}, {analysis: [` + compared + `]}, {weight: 60}]}}`
	routesShort    = `{canary: {progressDeadline: $DEADLINE, steps: [{weight: 25}, {analysis: [$AFTER]}, {weight: 60}]}}`
	afterOnly      = `{blueGreen: {progressDeadline: $DEADLINE, after: [$AFTER]}}`
)

// Prometheus is killed in the middle of analyses, and comes back without data, with counters that have begun anew. Nothing is
// held against a version for that, and nothing for it: it waits, or is taken out where that is asked for, and goes on.
func TestPrometheusIsDown(t *testing.T) {
	const few = "consecutiveErrorLimit: 2, inconclusiveLimit: 60"
	tell := func(a app) story { return story{t, a} }
	byRoutes := tell(app{name: "unseen-routes", strategy: routesCompared, routed: true, count: 12, limits: few})
	worse := tell(app{name: "unseen-worse", strategy: routesCompared, routed: true, count: 12, limits: few})
	byPods := tell(app{name: "unseen-pods", strategy: pods, count: 12, limits: few})
	blue := tell(app{name: "unseen-blue", strategy: afterOnly, count: 12, limits: few})
	out := tell(app{name: "unseen-out", strategy: routesShort, routed: true, count: 12, limits: few + ", onInsufficientData: Rollback"})
	plain := tell(app{name: "unseen-rolling", strategy: rolling})
	agent(t)
	begin(t, byRoutes.app, worse.app, byPods.app, blue.app, out.app, plain.app)
	version := promote(t, shared.better, byRoutes.app, worse.app, byPods.app, blue.app, out.app)
	at := map[story]int{byRoutes: 2, worse: 2, byPods: 3, blue: 3, out: 2}
	for s, step := range at {
		s.eventually(func() error { return s.looked(step) })
	}

	shared.metrics.Kill()
	for s, step := range at {
		s.eventually(func() error { return s.says("MetricsUnavailable") })
		if err := s.at(step, v1alpha1.PhasePaused); err != nil {
			t.Error(err)
		}
	}
	byRoutes.keeps(25)
	out.back()
	promote(t, shared.better, plain.app)
	plain.stays(shared.better)
	for s, step := range at {
		if err := errors.Join(s.says("MetricsUnavailable"), s.at(step, v1alpha1.PhasePaused)); err != nil {
			t.Error(err)
		}
	}

	shared.dials.reset()
	if err := startMetrics(context.WithoutCancel(t.Context()), shared.metrics.Address); err != nil {
		t.Fatal(err)
	}
	shared.dials.spoil(worse.name, 40)
	for _, s := range []story{byRoutes, byPods, blue} {
		s.stays(shared.better)
	}
	worse.comesBack(version, shared.better)
	if err := out.says("MetricsUnavailable"); err != nil { // nobody can see that it would do better now
		t.Error(err)
	}
	if err := out.approve(); err != nil {
		t.Fatal(err)
	}
	out.stays(shared.better)
}
