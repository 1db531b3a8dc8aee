package rollout_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// phase is a point of a rollout from v1 to v2 at which something else happens.
type phase struct {
	strategy string
	routes   bool
	step     int
	sizes    string
	// pinned are the Services that reach pods of one version, whatever happens.
	pinned map[string]string
	// gives is the Service or Route that gives v2 traffic, nil where that follows the pods or there is none.
	gives client.Object
}

func phases() map[string]phase {
	const pauses = `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}]}}`
	route := &unstructured.Unstructured{}
	route.SetAPIVersion("gateway.networking.k8s.io/v1")
	route.SetKind("HTTPRoute")
	return map[string]phase{
		"canary by Routes":             {pauses, true, 1, "4 of 4, 2", map[string]string{"web-stable": "v1:true", "web-canary": "v2:true"}, route},
		"canary by pods":               {pauses, false, 1, "2 of 2, 2", nil, nil},
		"blue-green before the switch": {`{"blueGreen": {"progressDeadline": "1m", "approve": true}}`, false, 1, "4 of 4, 4", map[string]string{"web": "v1:true", "web-canary": "v2:true"}, nil},
		"blue-green after the switch":  {`{"blueGreen": {"progressDeadline": "1m", "scaleDownDelay": "1h"}}`, false, 2, "4 of 4, 4", map[string]string{"web": "v2:true"}, &corev1.Service{}},
	}
}

const drained = 2 * time.Second

// begin comes to the phase.
func (p phase) begin(t *testing.T) (b *bed, v1, v2 v1alpha1.BundleRef) {
	t.Helper()
	if b, _ = measured(t, "1", p.strategy); p.routes {
		b.routes = []any{map[string]any{"name": "web"}, map[string]any{"kind": "GRPCRoute", "name": "web"}}
	}
	b.stop()
	b.drain = drained
	b.start()
	v1 = b.rollOut(minute, b.version("v1"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	v2 = b.rollOut(minute, b.version("v2"))
	b.waitsAt(p.step, v2, p.sizes)
	return b, v1, v2
}

func (b *bed) version(tag string) string {
	b.Helper()
	if b.routes != nil {
		return b.withRoutes(tag, tag)
	}
	return b.configured(b.image(tag, "ready"), tag)
}

// told is the canary's weight that an object has been told, and when, by the API server's clock; false for none.
func (b *bed) weightAt(object client.Object) (weight string, at time.Time) {
	b.Helper()
	if object = object.DeepCopyObject().(client.Object); !b.named("web", object) {
		return "", at
	}
	return object.GetAnnotations()[manifests.AnnotationTraffic], appliedAt(object)
}

func appliedAt(object metav1.Object) (at time.Time) {
	for _, e := range object.GetManagedFields() {
		if e.Manager == manifests.RolloutManager && e.Subresource == "" && e.Time != nil {
			at = e.Time.Time
		}
	}
	return at
}

// The newer version begins at stable. Pods that had traffic stay until nobody sends them any more.
func TestNewerVersionInTheMiddle(t *testing.T) {
	for name, p := range phases() {
		t.Run(name, func(t *testing.T) {
			b, _, v2 := p.begin(t)
			v3 := b.rollOut(minute, b.version("v3"))
			var left, exchanged time.Time
			b.eventually("v3 is where v2 was", func() bool {
				if p.gives != nil {
					if weight, at := b.weightAt(p.gives); weight == "0" && exchanged.IsZero() {
						left = at
					}
				}
				var canary appsv1.Deployment
				if b.named("web-canary", &canary) && canary.Annotations[manifests.AnnotationBundle] == v3.Digest && exchanged.IsZero() {
					exchanged = appliedAt(&canary)
				}
				if b.runs() != b.imageName("v1") || b.greets("web") != "v1" {
					t.Errorf("stable runs %s with %s", b.runs(), b.greets("web"))
				}
				course := b.rollout().Status.Course
				return course != nil && course.Canary != nil && course.Canary.Digest == v3.Digest && int(course.Step) == p.step && b.sizes() == p.sizes
			})
			if p.gives != nil && (left.IsZero() || exchanged.Sub(left) < drained) {
				t.Errorf("v2 lost its traffic at %s, and its pods at %s", left, exchanged)
			}
			if v2.Digest == v3.Digest {
				t.Error("v2 and v3 are the same")
			}
		})
	}
}

// A commit back to stable takes v2 out, and touches none of stable's pods that are there.
func TestBackToStableInTheMiddle(t *testing.T) {
	for name, p := range phases() {
		t.Run(name, func(t *testing.T) {
			b, v1, _ := p.begin(t)
			pods := b.stablePods()
			b.applyRollout(minute, &v1)
			web := b.reaches(v1alpha1.PhaseHealthy, v1)
			b.alone()
			b.eventually("stable is whole", func() bool { return b.sizes() == "4 of 4, 0" })
			b.isQuiet()
			for _, pod := range pods {
				if !slices.Contains(b.stablePods(), pod) {
					t.Errorf("pod %s of stable is gone", pod)
				}
			}
			if web.Status.Verdict.Reason != "AlreadyStable" || b.runs() != b.imageName("v1") || b.greets("web") != "v1" || len(b.selects("web")) != 1 {
				t.Errorf("verdict %+v, runs %s with %s, the Service selects %v", web.Status.Verdict, b.runs(), b.greets("web"), b.selects("web"))
			}
			if p.routes && b.sends() != "web 1" {
				t.Errorf("the Routes send to %s", b.sends())
			}
		})
	}
}

// stablePods are the names of the pods of the workload itself.
func (b *bed) stablePods() []string {
	b.Helper()
	return slices.DeleteFunc(b.pods(), func(pod string) bool { return strings.HasPrefix(pod, "web-canary-") })
}

// edit is what somebody does by hand.
type edit struct {
	name   string
	object client.Object
	of     string // its name
	patch  string // empty: it is deleted
	field  string // that the event names
}

func (b *bed) handEdits() map[string][]edit {
	service := func() client.Object { return &corev1.Service{} }
	workload := func() client.Object { return &appsv1.Deployment{} }
	foreign := b.image("foreign", "ready")
	edits := map[string][]edit{"Services": {
		{"selector", service(), "web", `{"spec":{"selector":{"app":"drift"}}}`, "spec.selector"},
		{"ports", service(), "web", `{"spec":{"ports":[{"port":81,"protocol":"TCP"}]}}`, "spec.ports"},
		{"deleted Service", service(), "web", "", ""},
	}}
	for _, of := range []string{"web", "web-canary"} {
		edits["Deployment "+of] = []edit{
			{"image", workload(), of, `{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"` + foreign + `"}]}}}}`, "image"},
			{"replicas", workload(), of, `{"spec":{"replicas":1}}`, "spec.replicas"},
			{"paused", workload(), of, `{"spec":{"paused":true}}`, "spec.paused"},
			{"deleted", workload(), of, "", ""},
		}
	}
	if b.routes != nil {
		route := func(kind string) client.Object {
			r := &unstructured.Unstructured{}
			r.SetAPIVersion("gateway.networking.k8s.io/v1")
			r.SetKind(kind)
			return r
		}
		edits["Routes"] = []edit{
			{"weights", route("GRPCRoute"), "web", `{"spec":{"rules":[{"backendRefs":[{"name":"web-stable","port":80,"weight":1},{"name":"web-canary","port":80,"weight":99}]}]}}`, "spec.rules"},
			{"foreign rule", route("HTTPRoute"), "web", `{"spec":{"rules":[{"matches":[{"path":{"type":"PathPrefix","value":"/mine"}}],"backendRefs":[{"name":"mine","port":80}]}]}}`, "spec.rules"},
			{"deleted HTTPRoute", route("HTTPRoute"), "web", "", ""},
			{"canary's Service", service(), "web-canary", `{"spec":{"selector":{"app":"drift"}}}`, "spec.selector"},
		}
	}
	return edits
}

// shape is all that people could change of what is there.
func (b *bed) shape() string {
	b.Helper()
	var text strings.Builder
	for _, name := range []string{"web", "web-canary"} {
		var d appsv1.Deployment
		if b.named(name, &d) && d.DeletionTimestamp == nil {
			fmt.Fprintf(&text, "%s: %s, %d of %d of %d pods, paused: %v\n", name, d.Spec.Template.Spec.Containers[0].Image, d.Status.AvailableReplicas, d.Status.Replicas, *d.Spec.Replicas, d.Spec.Paused)
		}
	}
	for _, name := range []string{"web", "web-stable", "web-canary"} {
		var s corev1.Service
		if b.named(name, &s) {
			fmt.Fprintf(&text, "%s: reaches %s by %d labels", name, b.reachedBy(name), len(s.Spec.Selector))
			for _, port := range s.Spec.Ports {
				fmt.Fprintf(&text, " at %d", port.Port)
			}
			text.WriteString("\n")
		}
	}
	for _, kind := range []string{"HTTPRoute", "GRPCRoute"} {
		route := &unstructured.Unstructured{}
		route.SetAPIVersion("gateway.networking.k8s.io/v1")
		route.SetKind(kind)
		if b.routes != nil && b.named("web", route) {
			rules, _, _ := unstructured.NestedSlice(route.Object, "spec", "rules")
			fmt.Fprintf(&text, "%s: %v\n", kind, rules)
		}
	}
	return text.String()
}

// What people change by hand in the middle is put right, they are named, and no Service that reaches one version reaches
// another meanwhile; but for stable, where they took all pods of the canary away.
func TestHandEditsInTheMiddle(t *testing.T) {
	for name, p := range phases() {
		groups := []string{"Services", "Deployment web", "Deployment web-canary"}
		if p.routes {
			groups = append(groups, "Routes")
		}
		for _, group := range groups {
			t.Run(name+"/"+group, func(t *testing.T) {
				b, _, _ := p.begin(t)
				before := b.shape()
				for i, e := range b.handEdits()[group] {
					b.undoes(p, e, fmt.Sprintf("meddler-%d", i), before)
				}
			})
		}
	}
}

func (b *bed) undoes(p phase, e edit, meddler, before string) {
	b.Helper()
	_ = b.tellings()
	b.told = nil
	e.object.SetNamespace(b.namespace)
	e.object.SetName(e.of)
	words := []string{"Drift", e.of, meddler, e.field}
	if e.patch == "" {
		words = []string{"Drift", e.of, "it was deleted"}
		if err := b.client.Delete(b.ctx, e.object); err != nil {
			b.Fatal(err)
		}
	} else {
		kind := types.MergePatchType
		if _, is := e.object.(*appsv1.Deployment); is {
			kind = types.StrategicMergePatchType
		}
		if err := b.client.Patch(b.ctx, e.object, client.RawPatch(kind, []byte(e.patch)), client.FieldOwner(meddler)); err != nil {
			b.Fatal(err)
		}
	}
	var now string
	reached, forsaken := map[string]bool{}, e.of == "web-canary" && e.patch == ""
	b.eventually(e.name+" is healed", func() bool {
		for service, version := range p.pinned {
			if got := b.reachedBy(service); got != version && got != "" && got != "no Service" && (!forsaken || service != "web" || got != "v1") {
				reached[service+" reached "+got] = true
			}
		}
		now = b.shape()
		return b.wasTold(words...) && now == before || b.Failed()
	})
	if len(reached) > 0 {
		b.Errorf("%s: %v", e.name, reached)
	}
}

// Configuration goes forward and back with its version, whatever its name.
func TestConfigurationAloneGoesBack(t *testing.T) {
	const steps = `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}, {"analysis": [` + failsAbove5 + `]}]}}`
	for name, c := range map[string]struct {
		strategy string
		routes   bool
		sizes    string
	}{
		"canary by Routes": {steps, true, "4 of 4, 2"},
		"canary by pods":   {steps, false, "2 of 2, 2"},
		"blue-green":       {`{"blueGreen": {"progressDeadline": "1m", "approve": true, "after": [` + failsAbove5 + `]}}`, false, "4 of 4, 4"},
	} {
		for _, hashed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hashed: %v", name, hashed), func(t *testing.T) {
				b, load := measured(t, "1", c.strategy)
				if c.routes {
					b.routes = []any{map[string]any{"name": "web"}, map[string]any{"kind": "GRPCRoute", "name": "web"}}
				}
				with := func(greeting string) string { // all but the configuration is the same
					content := strings.ReplaceAll(b.version("v1"), "greeting: v1", "greeting: "+greeting)
					if hashed {
						content = strings.Replace(content, "ConfigMap\nmetadata: {name: web,", "ConfigMap\nmetadata: {name: web-"+greeting+",", 1)
						content = strings.Replace(content, "configMapRef: {name: web}", "configMapRef: {name: web-"+greeting+"}", 1)
					}
					return content
				}
				configured := func(workload string) string {
					var d appsv1.Deployment
					if !b.named(workload, &d) {
						return ""
					}
					return b.greets(d.Spec.Template.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name)
				}
				v1 := b.rollOut(minute, with("one"))
				b.reaches(v1alpha1.PhaseHealthy, v1)
				pods := b.stablePods()
				v2 := b.rollOut(minute, with("two"))
				b.waitsAt(1, v2, c.sizes)
				if configured("web") != "one" || configured("web-canary") != "two" {
					t.Errorf("stable is configured with %s, the canary with %s", configured("web"), configured("web-canary"))
				}
				load.answer.Store("9")
				b.approve(1, v2)
				b.eventually("v2 fails", func() bool {
					if got := configured("web"); got != "one" {
						t.Errorf("stable is configured with %s", got)
					}
					return b.rollout().Status.Phase == v1alpha1.PhaseFailed
				})
				b.alone()
				b.applyRollout(minute, &v1) // the revert
				b.reaches(v1alpha1.PhaseHealthy, v1)
				b.isQuiet()
				if got := configured("web"); got != "one" || b.sizes() != "4 of 4, 0" || b.named("web-two", &corev1.ConfigMap{}) {
					t.Errorf("in the end stable is configured with %s, %s pods", got, b.sizes())
				}
				if left := b.stablePods(); c.sizes != "2 of 2, 2" && !slices.Equal(left, pods) {
					t.Errorf("pods %q became %q", pods, left)
				}
			})
		}
	}
}
