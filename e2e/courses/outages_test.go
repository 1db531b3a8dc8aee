package courses

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
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

// asks fails unless the Deployment asks for an image.
func (s story) asks(image string) error {
	var web appsv1.Deployment
	err := shared.Kube.Get(s.Context(), client.ObjectKey{Namespace: s.name, Name: "web"}, &web)
	if err == nil && web.Spec.Template.Spec.Containers[0].Image != image {
		err = fmt.Errorf("%s does not ask for %s", s.name, image)
	}
	return err
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

// The API server is killed in the middle of all strategies, while a version begins to fail.
func TestAPIServerIsDown(t *testing.T) {
	tell := func(a app) story { return story{t, a} }
	byRoutes := tell(app{name: "adrift-routes", strategy: routesShort, routed: true, count: 12})
	failing := tell(app{name: "adrift-failing", strategy: routesShort, routed: true, count: 1000})
	byPods := tell(app{name: "adrift-pods", strategy: pods, count: 12})
	blue := tell(app{name: "adrift-blue", strategy: afterOnly, count: 12})
	plain := tell(app{name: "adrift-rolling", strategy: rolling})
	agent(t)
	begin(t, byRoutes.app, failing.app, byPods.app, blue.app, plain.app)
	image, later, err := version("ready later")
	if err != nil {
		t.Fatal(err)
	}
	promote(t, later, plain.app)
	version := promote(t, shared.better, byRoutes.app, failing.app, byPods.app, blue.app)
	for s, step := range map[story]int{byRoutes: 2, failing: 2, byPods: 3, blue: 3} {
		s.eventually(func() error { return s.looked(step) })
	}
	plain.eventually(func() error { return plain.asks(later) })

	failing.must(shared.Cluster.Kill("kube-apiserver"))
	shared.dials.turn(failing.name, "after", 9)
	failing.must(shared.Cluster.StartRole(t.Context(), "kube-apiserver"))
	failing.must(shared.Cluster.WaitReady(t.Context()))
	failing.must(push(t.Context(), image, later))
	failing.comesBack(version, shared.better)
	for _, s := range []story{byRoutes, byPods, blue} {
		s.stays(shared.better)
	}
	plain.stays(later)
}

// Versions fail while nobody can ask Git or push: traffic returns all the same, and each revert lands when the host is back.
func TestGitHostIsDown(t *testing.T) {
	tell := func(a app) story { return story{t, a} }
	byRoutes := tell(app{name: "cutoff-routes", strategy: routesShort, routed: true, count: 1000})
	byPods := tell(app{name: "cutoff-pods", strategy: pods, count: 1000})
	blue := tell(app{name: "cutoff-blue", strategy: afterOnly, count: 1000})
	plain := tell(app{name: "cutoff-rolling", strategy: rolling, deadline: "10s"})
	agent(t)
	begin(t, byRoutes.app, byPods.app, blue.app, plain.app)
	image, never, err := version("never-ready")
	if err == nil {
		err = push(t.Context(), image, never)
	}
	if err != nil {
		t.Fatal(err)
	}
	version := promote(t, shared.better, byRoutes.app, byPods.app, blue.app)
	for s, step := range map[story]int{byRoutes: 2, byPods: 3, blue: 3} {
		s.eventually(func() error { return s.at(step, v1alpha1.PhaseProgressing) })
	}
	last := promote(t, never, plain.app)
	plain.eventually(func() error { return plain.asks(never) })
	plain.must(shared.StopHost())
	t.Cleanup(func() { plain.must(shared.StartHost()) })
	for _, s := range []story{byRoutes, byPods, blue} {
		shared.dials.turn(s.name, "after", 9)
	}
	for _, s := range []story{byRoutes, byPods, blue, plain} {
		s.back()
		s.eventually(func() error {
			state, err := shared.Application(s.Context(), s.name)
			if err != nil {
				return err
			}
			if c := meta.FindStatusCondition(state.Status.Conditions, v1alpha1.ConditionReady); c == nil || c.Reason != v1alpha1.ReasonRevertRequested {
				return fmt.Errorf("%s: %+v", s.name, c)
			}
			return nil
		})
	}
	plain.must(shared.StartHost())
	for _, s := range []story{byRoutes, byPods, blue} {
		s.comesBack(version, shared.better)
	}
	plain.comesBack(last, never)
}

// The registry is down while versions come in, and one of them was never pushed: pods that do not get their image say nothing
// about a version.
func TestRegistryIsDown(t *testing.T) {
	apps := []app{
		{name: "unfed-routes", strategy: routes, routed: true, deadline: "3s"},
		{name: "unfed-pods", strategy: pods, deadline: "3s"},
		{name: "unfed-blue", strategy: blueGreen, deadline: "3s"},
		{name: "unfed-rolling", strategy: rolling, deadline: "3s"},
	}
	unknown := story{t, app{name: "unfed-unknown", strategy: routes, routed: true, deadline: "3s"}}
	agent(t)
	begin(t, append(apps, unknown.app)...)
	image, pulled, err := version("ready when pulled")
	unknown.must(err)
	unknown.must(push(t.Context(), image, pulled))
	missing, late, err := version("ready when pushed")
	unknown.must(err)

	unknown.must(shared.Registry.Down())
	t.Cleanup(func() { unknown.must(shared.Registry.Up(context.WithoutCancel(t.Context()))) })
	promote(t, pulled, apps...)
	for _, a := range apps {
		story{t, a}.eventually(func() error { return story{t, a}.says("ImagePull") })
	}
	unknown.must(shared.Registry.Up(t.Context()))
	promote(t, late, unknown.app)
	unknown.eventually(func() error { return unknown.says("ImagePull") })
	for _, a := range apps {
		story{t, a}.stays(pulled)
	}
	if err := unknown.says("ImagePull"); err != nil {
		t.Error(err)
	}
	unknown.must(push(t.Context(), missing, late))
	unknown.stays(late)
}
