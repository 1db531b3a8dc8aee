package rollout_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// elastic is web whose number of pods does not stand in Git.
func elastic(content string) string {
	return strings.Replace(content, "  replicas: 4\n", "", 1)
}

// autoscaler is a HorizontalPodAutoscaler of web, on a tenth of a processor. Nothing measures that but in
// TestTheAutoscalerCountsBothVersions: it holds its bounds, and scale does what else it would do.
func (b *bed) autoscaler(least int32) *autoscalingv2.HorizontalPodAutoscaler {
	b.Helper()
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: b.namespace},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			MinReplicas:    &least, MaxReplicas: 50,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse("100m"))},
			}}},
		},
	}
	b.create(hpa)
	return hpa
}

// scale sets the number of stable's pods the way an autoscaler does, by the subresource.
func (b *bed) scale(replicas int32) {
	b.Helper()
	b.eventually("the workload is scaled", func() bool {
		scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}
		err := b.client.SubResource("scale").Update(b.ctx, b.deployment(), client.WithSubResourceBody(scale), client.FieldOwner("kube-controller-manager"))
		if err != nil && !apierrors.IsConflict(err) {
			b.Fatal(err)
		}
		return err == nil
	})
}

// leavesTheNumber says that the loop has no part in the number of stable's pods.
func (b *bed) leavesTheNumber() {
	b.Helper()
	for _, e := range b.deployment().ManagedFields {
		if e.Manager == manifests.RolloutManager && strings.Contains(string(e.FieldsV1.GetRawBytes()), `"f:replicas"`) {
			b.Errorf("%s owns spec.replicas", e.Manager)
		}
	}
	if b.wasTold("Drift") {
		b.Errorf("an autoscaler's number is called a drift: %q", b.tellings())
	}
}

func TestCanaryFollowsTheAutoscaler(t *testing.T) {
	const pauses = `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}]}}`
	for name, begin := range map[string]func(*testing.T) (*bed, func(string) string){
		"by Routes": func(t *testing.T) (*bed, func(string) string) {
			b, _ := routed(t, "1", pauses)
			return b, func(tag string) string { return elastic(b.withRoutes(tag, tag)) }
		},
		"by pods": func(t *testing.T) (*bed, func(string) string) {
			b, _ := measured(t, "1", pauses)
			return b, func(tag string) string { return elastic(b.configured(b.image(tag, "ready"), tag)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, web := begin(t)
			hpa := b.autoscaler(1)
			b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, web("v1")))
			b.scale(4)
			v2 := b.rollOut(minute, web("v2"))
			b.waitsAt(1, v2, "4 of 4, 2")
			for _, c := range []struct {
				to    int32
				sizes string
			}{{8, "8 of 8, 4"}, {3, "3 of 3, 2"}, {0, "0 of 0, 0"}, {4, "4 of 4, 2"}} { // to zero and back as KEDA does
				b.scale(c.to)
				b.waitsAt(1, v2, c.sizes)
			}
			b.leavesTheNumber()
			b.isQuiet()

			// The real autoscaler raises what is below its bound.
			change := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"minReplicas":6}}`))
			if err := b.client.Patch(b.ctx, hpa, change); err != nil {
				t.Fatal(err)
			}
			b.waitsAt(1, v2, "6 of 6, 3")
			b.approve(1, v2)
			b.reaches(v1alpha1.PhaseHealthy, v2)
			b.alone()
			if b.sizes() != "6 of 6, 0" {
				t.Errorf("in the end there are %s pods", b.sizes())
			}
			b.leavesTheNumber()
		})
	}
}

// A new version starts without pods where there are none, and does not wait for any.
func TestCanaryAtZero(t *testing.T) {
	b, _ := routed(t, "1", `{"canary": {"progressDeadline": "20s", "steps": [{"weight": 50}, {"pause": {}}]}}`)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, elastic(b.withRoutes("v1", "one"))))
	b.scale(0)
	b.eventually("nothing runs", func() bool { return b.sizes() == "0 of 0, 0" })
	v2 := b.rollOut(minute, elastic(b.withRoutes("v2", "two")))
	b.waitsAt(1, v2, "0 of 0, 0")
	b.scale(2) // somebody asks for it
	b.waitsAt(1, v2, "2 of 2, 1")
	b.scale(0)
	b.approve(1, v2)
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()
	if b.sizes() != "0 of 0, 0" || b.runs() != b.imageName("v2") {
		t.Errorf("%s pods of %s", b.sizes(), b.runs())
	}
}

func TestAutoscalerInPromotion(t *testing.T) {
	b, _ := routed(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}]}}`)
	b.autoscaler(1)
	slow := func(tag string) string {
		return strings.Replace(elastic(b.withRoutes(tag, tag)), "  selector: {matchLabels", "  minReadySeconds: 3\n  selector: {matchLabels", 1)
	}
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, slow("v1")))
	b.scale(4)
	v2 := b.rollOut(minute, slow("v2"))
	b.waitsAt(1, v2, "4 of 4, 2")
	b.approve(1, v2)
	b.eventually("stable is being updated", func() bool {
		course := b.rollout().Status.Course
		return course != nil && course.Promoting && b.runs() == b.imageName("v2")
	})
	b.scale(7)
	var most int32
	b.eventually("v2 is stable", func() bool {
		var canary appsv1.Deployment
		if b.named("web-canary", &canary) {
			most = max(most, *canary.Spec.Replicas)
		}
		return b.rollout().Status.Phase == v1alpha1.PhaseHealthy
	})
	b.alone()
	if b.sizes() != "7 of 7, 0" || most != 7 {
		t.Errorf("in the end there are %s pods; the canary, which had all traffic, had at most %d", b.sizes(), most)
	}
	b.leavesTheNumber()
}

func TestAutoscalerWhileTrafficReturns(t *testing.T) {
	b, _ := routed(t, "9", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}, {"analysis": [`+failsAbove5+`]}]}}`)
	b.autoscaler(1)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, elastic(b.withRoutes("v1", "one"))))
	b.scale(4)
	v2 := b.rollOut(minute, elastic(b.withRoutes("v2", "two")))
	b.waitsAt(1, v2, "4 of 4, 2")
	b.deploymentsDown.Store(true)
	b.approve(1, v2)
	b.eventually("traffic returns", func() bool { return b.sends() == "web-stable 1" })
	b.scale(7) // stable alone has all of it now
	b.eventually("stable grows", func() bool { return b.sizes() == "7 of 7, 2" })
	b.deploymentsDown.Store(false)
	b.reaches(v1alpha1.PhaseFailed, v2)
	b.alone()
	if b.sizes() != "7 of 7, 0" || b.runs() != b.imageName("v1") {
		t.Errorf("%s pods of %s", b.sizes(), b.runs())
	}
	b.leavesTheNumber()
}

// A number that leaves Git, and one that comes: neither lets the workload fall to one pod, nor holds a canary up.
func TestTheNumberLeavesGitAndComesBack(t *testing.T) {
	const pauses = `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}]}}`
	for name, c := range map[string]struct {
		begin    func(*testing.T) *bed
		strategy string
		middle   string
	}{
		"canary by pods":   {func(t *testing.T) *bed { b, _ := measured(t, "1", pauses); return b }, "", "2 of 2, 2"},
		"canary by Routes": {func(t *testing.T) *bed { b, _ := routed(t, "1", pauses); return b }, "", "4 of 4, 2"},
		"rolling":          {newBed, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.begin(t)
			web := func(tag string) string { return b.withRoutes(tag, tag) }
			if b.routes == nil {
				web = func(tag string) string { return b.configured(b.image(tag, "ready"), tag) }
			}
			goes := func(content, middle, end string) {
				t.Helper()
				bundle := b.rollOut(minute, content)
				least := int32(99)
				look := func() bool { // first at the canary, which goes after stable has grown
					var canary appsv1.Deployment
					if !b.named("web-canary", &canary) {
						canary.Spec.Replicas = new(int32)
					}
					least = min(least, *canary.Spec.Replicas+*b.deployment().Spec.Replicas)
					return true
				}
				if middle != "" {
					b.waitsAt(1, bundle, middle)
					look()
					b.approve(1, bundle)
				}
				b.eventually("it passes", func() bool {
					status := b.rollout().Status
					return look() && status.Phase == v1alpha1.PhaseHealthy && status.Target.Digest == bundle.Digest
				})
				b.alone()
				b.eventually(end+" pods", func() bool { return look() && b.sizes() == end })
				if least < 4 {
					t.Errorf("there were only %d pods", least)
				}
				b.isQuiet()
			}
			b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, web("v1")))
			goes(elastic(web("v2")), c.middle, "4 of 4, 0")
			b.scale(5)
			b.eventually("it is scaled", func() bool { return b.sizes() == "5 of 5, 0" })
			b.leavesTheNumber()
			goes(web("v3"), c.middle, "4 of 4, 0")
		})
	}
}

// meters is the resource metrics API, for one namespace: all its pods share a load.
type meters struct {
	bed  *bed
	load atomic.Int64 // thousandths of a processor
}

func (m *meters) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	const group = "metrics.k8s.io/v1beta1"
	if r.URL.Path == "/apis/"+group {
		fmt.Fprint(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"`+group+`","resources":[{"name":"pods","namespaced":true,"kind":"PodMetrics","verbs":["get","list"]}]}`)
		return
	}
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	var pods corev1.PodList
	if err != nil || r.URL.Path != "/apis/"+group+"/namespaces/"+m.bed.namespace+"/pods" ||
		m.bed.client.List(r.Context(), &pods, client.InNamespace(m.bed.namespace), client.MatchingLabelsSelector{Selector: selector}) != nil {
		http.NotFound(w, r)
		return
	}
	items := []any{}
	for i := range pods.Items {
		usage := map[string]any{"cpu": strconv.Itoa(int(m.load.Load())/len(pods.Items)) + "m"}
		items = append(items, map[string]any{
			"metadata": map[string]any{"name": pods.Items[i].Name, "namespace": m.bed.namespace}, "timestamp": time.Now().UTC().Format(time.RFC3339), "window": "1s",
			"containers": []any{map[string]any{"name": "web", "usage": usage}},
		})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "PodMetricsList", "apiVersion": group, "metadata": map[string]any{}, "items": items})
}

// serve puts m behind the cluster's API server until the test ends.
func (m *meters) serve() {
	b := m.bed
	server := httptest.NewTLSServer(m)
	b.Cleanup(server.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "https://"), ":")
	number, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		b.Fatal(err)
	}
	b.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "meters", Namespace: b.namespace}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "127.0.0.1"}})
	api := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": "v1beta1.metrics.k8s.io"},
		"spec": map[string]any{
			"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": int64(100), "versionPriority": int64(100), "insecureSkipTLSVerify": true,
			"service": map[string]any{"name": "meters", "namespace": b.namespace, "port": number},
		},
	}}
	b.create(api)
	b.Cleanup(func() { _ = b.client.Delete(context.Background(), api) })
}

// Kubernetes' autoscaler finds pods by the workload's selector, which the canary's match too: it wants as many pods of stable
// as all traffic needs, wherever that goes. Did it count stable's alone, it would take them away as traffic leaves them.
func TestTheAutoscalerCountsBothVersions(t *testing.T) {
	b, _ := routed(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}]}}`)
	m := &meters{bed: b}
	m.load.Store(400)
	m.serve()
	hpa := b.autoscaler(1)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, elastic(b.withRoutes("v1", "one"))))
	b.scale(4)
	v2 := b.rollOut(minute, elastic(b.withRoutes("v2", "two")))
	b.waitsAt(1, v2, "4 of 4, 2")
	b.eventually("the autoscaler has measured six pods", func() bool {
		b.get(hpa)
		current := hpa.Status.CurrentMetrics
		return len(current) == 1 && current[0].Resource != nil && current[0].Resource.Current.AverageValue.MilliValue() == 66 && hpa.Status.DesiredReplicas == 4
	})
	m.load.Store(800)
	b.waitsAt(1, v2, "8 of 8, 4")
	b.leavesTheNumber()
	b.approve(1, v2)
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()
}

// A budget counts the pods of both workloads. It holds evictions up, and neither a canary nor the way back.
func TestDisruptionBudgetBesideACanary(t *testing.T) {
	b, load := measured(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}, {"analysis": [`+failsAbove5+`]}]}}`)
	none := intstr.FromInt32(0)
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: b.namespace},
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &none, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	}
	b.create(budget)
	counts := func(expected int32) {
		t.Helper()
		b.eventually(fmt.Sprintf("the budget is about %d pods", expected), func() bool {
			b.get(budget)
			return budget.Status.ExpectedPods == expected && budget.Status.CurrentHealthy == expected
		})
	}
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.configured(b.image("v1", "ready"), "one")))
	counts(4)
	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	b.waitsAt(1, v2, "2 of 2, 2")
	counts(4)
	for _, pod := range b.pods() {
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: b.namespace}}
		err := b.client.SubResource("eviction").Create(b.ctx, &corev1.Pod{ObjectMeta: eviction.ObjectMeta}, eviction)
		if !apierrors.IsTooManyRequests(err) {
			t.Errorf("the eviction of %s: %v", pod, err)
		}
	}
	b.approve(1, v2)
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()
	counts(4)
	v3 := b.rollOut(minute, b.configured(b.image("v3", "ready"), "three"))
	b.waitsAt(1, v3, "2 of 2, 2")
	load.answer.Store("9")
	b.approve(1, v3)
	b.reaches(v1alpha1.PhaseFailed, v3)
	b.alone()
	counts(4)
	if b.runs() != b.imageName("v2") {
		t.Errorf("%s runs", b.runs())
	}
}
