package rollout_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout"
)

const routesOfWeb = `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: $NS}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /docs}}]
    backendRefs: [{name: docs, port: 80}]
  - backendRefs: [{name: web, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: web, namespace: $NS}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`

// routed is a bed whose Rollout shares traffic out by Routes.
func routed(t *testing.T, answer, strategy string) (*bed, *gauge) {
	t.Helper()
	b, g := measured(t, answer, strategy)
	b.routes = []any{map[string]any{"name": "web"}, map[string]any{"kind": "GRPCRoute", "name": "web"}}
	return b, g
}

func (b *bed) withRoutes(tag, greeting string) string {
	return b.configured(b.image(tag, "ready"), greeting) + strings.ReplaceAll(routesOfWeb, "$NS", b.namespace)
}

// sends is what both Routes send to, but for what is not the Rollout's: "web-stable 75, web-canary 25".
func (b *bed) sends() string {
	b.Helper()
	said := map[string]bool{}
	for _, kind := range []string{"HTTPRoute", "GRPCRoute"} {
		route := b.route(kind)
		rules, _, err := unstructured.NestedSlice(route.Object, "spec", "rules")
		if err != nil {
			b.Fatal(err)
		}
		if kind == "HTTPRoute" {
			if docs := fmt.Sprint(rules[0]); !strings.Contains(docs, "/docs") || !strings.Contains(docs, "name:docs") {
				b.Errorf("another's rule became %s", docs)
			}
			rules = rules[1:]
		}
		var words []string
		for _, rule := range rules {
			matches, _, _ := unstructured.NestedSlice(rule.(map[string]any), "matches")
			if strings.Contains(fmt.Sprint(matches), "x-canary") {
				words = append(words, "header:")
			}
			refs, _, _ := unstructured.NestedSlice(rule.(map[string]any), "backendRefs")
			for _, ref := range refs {
				words = append(words, fmt.Sprintf("%s %d", ref.(map[string]any)["name"], ref.(map[string]any)["weight"]))
			}
		}
		said[strings.Join(words, ", ")] = true
	}
	return strings.TrimSuffix(strings.TrimPrefix(fmt.Sprint(said), "map["), ":true]")
}

func (b *bed) route(kind string) *unstructured.Unstructured {
	b.Helper()
	route := &unstructured.Unstructured{}
	route.SetAPIVersion("gateway.networking.k8s.io/v1")
	route.SetKind(kind)
	if !b.named("web", route) {
		b.Fatalf("no %s", kind)
	}
	return route
}

func TestCanaryByRoutes(t *testing.T) {
	b, asked := routed(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [{"header": {"name": "x-canary", "value": "yes"}}, {"pause": {}}, {"header": {}},
		{"weight": 25}, {"pause": {}}, {"analysis": [`+strings.ReplaceAll(failsAbove5, `pod=~\"{{canary}}\"`, `service=~\"{{service}}\"`)+`]}]}}`)
	v1 := b.rollOut(minute, b.withRoutes("v1", "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	if got := b.sends(); got != "web 1" {
		t.Errorf("without a canary the Routes send to %s", got)
	}
	v2 := b.rollOut(minute, b.withRoutes("v2", "two"))
	b.waitsAt(1, v2, "4 of 4, 1")
	if got := b.sends(); got != "header:, web-canary 1, web-stable 1" {
		t.Errorf("by header the Routes send to %s", got)
	}
	b.approve(1, v2)
	b.waitsAt(4, v2, "4 of 4, 1")
	if got := b.sends(); got != "web-stable 75, web-canary 25" {
		t.Errorf("with 25%% the Routes send to %s", got)
	}
	if stable, canary := b.reachedBy("web-stable"), b.reachedBy("web-canary"); stable != "v1:true" || canary != "v2:true" {
		t.Errorf("web-stable reaches %s, web-canary %s", stable, canary)
	}
	b.isQuiet()

	// A hand edit of a Route is healed.
	change := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"rules":[{"backendRefs":[{"name":"web-canary","port":80}]}]}}`))
	if err := b.client.Patch(b.ctx, b.route("GRPCRoute"), change, client.FieldOwner("meddler")); err != nil {
		t.Fatal(err)
	}
	b.eventually("who changed the Route is told", func() bool { return b.wasTold("Drift", "GRPCRoute", "meddler") })
	if got := b.sends(); got != "web-stable 75, web-canary 25" {
		t.Errorf("after a hand edit the Routes send to %s", got)
	}

	b.approve(4, v2)
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()
	b.isQuiet()
	if want := `load{service=~"(web-canary)"}[1s]`; asked.asked.Load() != want {
		t.Errorf("asked for %s, want %s", asked.asked.Load(), want)
	}
	if got := b.sends(); got != "web 1" || b.sizes() != "4 of 4, 0" || b.runs() != b.imageName("v2") || b.route("HTTPRoute").GetAnnotations()[manifests.AnnotationTraffic] != "" {
		t.Errorf("in the end the Routes send to %s, %s pods of %s, annotations %v", got, b.sizes(), b.runs(), b.route("HTTPRoute").GetAnnotations())
	}
}

func TestCanaryByRoutesFails(t *testing.T) {
	b, _ := routed(t, "9", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}, {"analysis": [`+failsAbove5+`]}]}}`)
	v1 := b.rollOut(minute, b.withRoutes("v1", "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	v2 := b.rollOut(minute, b.withRoutes("v2", "two"))
	b.waitsAt(1, v2, "4 of 4, 2")
	if got := b.sends(); got != "web-stable 50, web-canary 50" {
		t.Errorf("with 50%% the Routes send to %s", got)
	}
	b.failpoint.Store(rollout.FailpointVerdict)
	b.approve(1, v2)
	b.eventually("it is killed between verdict and traffic", func() bool { return b.kills.Load() == 1 })
	b.stop()
	if got := b.sends(); got != "web-stable 50, web-canary 50" || b.rollout().Status.Verdict == nil {
		t.Errorf("killed, the Routes send to %s; verdict %v", got, b.rollout().Status.Verdict)
	}
	b.start()
	web := b.reaches(v1alpha1.PhaseFailed, v2)
	b.alone()
	b.isQuiet()
	if web.Status.Verdict.Reason != "MetricOutOfRange" || b.sends() != "web 1" || b.sizes() != "4 of 4, 0" || b.runs() != b.imageName("v1") {
		t.Errorf("verdict %+v; the Routes send to %s, %s pods of %s", web.Status.Verdict, b.sends(), b.sizes(), b.runs())
	}
}

// Traffic goes first: it returns also when nothing else can be put in place.
func TestTrafficReturnsByRoutesWhateverElseFails(t *testing.T) {
	b, _ := routed(t, "9", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}, {"analysis": [`+failsAbove5+`]}]}}`)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.withRoutes("v1", "one")))
	v2 := b.rollOut(minute, b.withRoutes("v2", "two"))
	b.waitsAt(1, v2, "4 of 4, 2")
	b.deploymentsDown.Store(true)
	b.approve(1, v2)
	b.eventually("traffic returns", func() bool { return b.sends() == "web-stable 1" })
	b.deploymentsDown.Store(false)
	b.reaches(v1alpha1.PhaseFailed, v2)
	b.alone()
}

func TestDeletingByRoutesFinishesOnStable(t *testing.T) {
	b, _ := routed(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}]}}`)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.withRoutes("v1", "one")))
	v2 := b.rollOut(minute, b.withRoutes("v2", "two"))
	b.waitsAt(1, v2, "4 of 4, 2")
	if err := b.client.Delete(b.ctx, b.rollout()); err != nil {
		t.Fatal(err)
	}
	b.eventually("the Rollout is gone", func() bool { return b.rollout() == nil })
	b.alone()
	if got := b.sends(); got != "web 1" || b.runs() != b.imageName("v1") {
		t.Errorf("the Routes send to %s, %s runs", got, b.runs())
	}
	for _, object := range []metav1.Object{b.route("HTTPRoute"), b.route("GRPCRoute"), b.deployment()} {
		if got := managers(object); strings.Contains(strings.Join(got, " "), manifests.RolloutManager) {
			t.Errorf("managers %q", got)
		}
	}
}

// The configuration of the Route is a person's fault, and not the version's.
func TestARouteThatSendsElsewherePauses(t *testing.T) {
	b, _ := routed(t, "1", `{"canary": {"progressDeadline": "4s", "steps": [{"weight": 50}]}}`)
	elsewhere := func(tag string) string {
		return strings.ReplaceAll(b.withRoutes(tag, "one"), "backendRefs: [{name: web,", "backendRefs: [{name: other,")
	}
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, elsewhere("v1")))
	v2 := b.rollOut(minute, elsewhere("v2"))
	web := b.reaches(v1alpha1.PhasePaused, v2)
	if v := web.Status.Verdict; v.Outcome != v1alpha1.VerdictInconclusive || !strings.Contains(v.Message, "no rule sends to the Rollout's Services") {
		t.Errorf("verdict %+v", v)
	}
	var canary appsv1.Deployment
	if b.named("web-canary", &canary) {
		t.Error("a canary runs, and the Service sends to it")
	}
}
