package rollout_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/prom"
)

// gauge is a server that speaks Prometheus' API and always has one answer: a number, or nothing.
type gauge struct {
	answer atomic.Value // string
	asked  atomic.Value // string: the last query
}

func (g *gauge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.asked.Store(r.FormValue("query"))
	result := ""
	if answer := g.answer.Load().(string); answer != "" {
		result = fmt.Sprintf(`{"metric":{},"value":[1,%q]}`, answer)
	}
	fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[%s]}}`, result)
}

// measured is a bed with a strategy whose metrics a gauge answers.
func measured(t *testing.T, answer, strategy string) (*bed, *gauge) {
	t.Helper()
	g := &gauge{}
	g.answer.Store(answer)
	g.asked.Store("")
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	meter, err := prom.New(prom.Options{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(meter.Close)
	b := newBed(t)
	b.stop()
	b.meter = meter
	if err := json.Unmarshal([]byte(strategy), &b.strategy); err != nil {
		t.Fatal(err)
	}
	b.start()
	return b, g
}

const failsAbove5 = `{"name": "load", "range": {"query": "load{pod=~\"{{canary}}\"}[{{interval}}]", "max": 5},
	"interval": "1s", "count": 2, "consecutiveErrorLimit": 0, "inconclusiveLimit": 0}`

// configured is web with four pods that use its configuration.
func (b *bed) configured(image, greeting string) string {
	content := strings.Replace(b.web(image, greeting), "replicas: 3", "replicas: 4", 1)
	return strings.Replace(content, "{name: web, image:", "{name: web, envFrom: [{configMapRef: {name: web}}, {secretRef: {name: web}}], image:", 1)
}

// named reads an object of the bed; false when it is not there.
func (b *bed) named(name string, object client.Object) bool {
	b.Helper()
	err := b.client.Get(b.ctx, client.ObjectKey{Namespace: b.namespace, Name: name}, object)
	if err != nil && !apierrors.IsNotFound(err) {
		b.Fatal(err)
	}
	return err == nil
}

// sizes are the available pods of stable and canary.
func (b *bed) sizes() string {
	b.Helper()
	var canary appsv1.Deployment
	b.named("web-canary", &canary)
	stable := b.deployment()
	return fmt.Sprintf("%d of %d, %d", stable.Status.AvailableReplicas, stable.Status.Replicas, canary.Status.AvailableReplicas)
}

// waitsAt waits until a step of a bundle is what the Rollout stands at, with these pods.
func (b *bed) waitsAt(step int, bundle v1alpha1.BundleRef, sizes string) {
	b.Helper()
	b.eventually(fmt.Sprintf("%s is at step %d with %s pods", bundle.Name, step, sizes), func() bool {
		course := b.rollout().Status.Course
		return course != nil && course.Canary != nil && course.Canary.Digest == bundle.Digest && int(course.Step) == step && b.sizes() == sizes
	})
}

func (b *bed) approve(step int, bundle v1alpha1.BundleRef) {
	b.Helper()
	status := b.rollout().Status
	answers := status.Course.Since.Time
	if status.Verdict != nil {
		answers = status.Verdict.At.Time
	}
	said, err := json.Marshal(v1alpha1.StepApproval{Bundle: bundle.Digest, Step: step, Answers: answers, At: time.Now(), By: "robin"})
	if err != nil {
		b.Fatal(err)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{manifests.AnnotationApproved: string(said)}}})
	if err != nil {
		b.Fatal(err)
	}
	if err := b.client.Patch(b.ctx, b.rollout(), client.RawPatch(types.MergePatchType, patch)); err != nil {
		b.Fatal(err)
	}
}

// alone holds when nothing is left beside the workload, and the loop is at rest.
func (b *bed) alone() {
	b.Helper()
	b.eventually("nothing is left beside stable", func() bool {
		for _, list := range []client.ObjectList{&appsv1.DeploymentList{}, &corev1.ServiceList{}, &corev1.ConfigMapList{}, &corev1.SecretList{}} {
			if err := b.client.List(b.ctx, list, client.InNamespace(b.namespace), client.HasLabels{manifests.LabelCanary}); err != nil {
				b.Fatal(err)
			}
			raw, _ := json.Marshal(list)
			if strings.Contains(string(raw), `"uid"`) {
				return false
			}
		}
		return true
	})
}

func (b *bed) greets(name string) string {
	b.Helper()
	var config corev1.ConfigMap
	b.named(name, &config)
	return config.Data["greeting"]
}

func TestCanaryGoesItsSteps(t *testing.T) {
	b, asked := measured(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [
		{"weight": 25}, {"pause": {}}, {"replicas": 50}, {"analysis": [`+failsAbove5+`]}]}}`)
	v1 := b.rollOut(minute, b.configured(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	image := b.image("v2", "ready")
	v2 := b.rollOut(minute, b.configured(image, "two"))
	b.waitsAt(1, v2, "3 of 3, 1")

	var canary appsv1.Deployment
	b.named("web-canary", &canary)
	copied := canary.Spec.Template.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name
	if b.greets("web") != "one" || b.greets(copied) != "two" || canary.Spec.Template.Labels["app"] != "web" {
		t.Errorf("stable is configured with %q, the canary by %s with %q; labels %v", b.greets("web"), copied, b.greets(copied), canary.Spec.Template.Labels)
	}
	b.isQuiet()

	// A hand edit is healed.
	change := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
	if err := b.client.Patch(b.ctx, &canary, change, client.FieldOwner("meddler")); err != nil {
		t.Fatal(err)
	}
	b.eventually("who took the canary's pods is told", func() bool { return b.wasTold("Drift", "web-canary", "meddler") })
	b.waitsAt(1, v2, "3 of 3, 1")

	// A restart goes on from what is written down.
	b.stop()
	b.approve(1, v2)
	b.start()
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()
	b.isQuiet()
	if want := `load{pod=~"web-canary-[a-z0-9]+-[a-z0-9]+"}[1s]`; asked.asked.Load() != want {
		t.Errorf("asked for %s, want %s", asked.asked.Load(), want)
	}
	status := b.rollout().Status
	if b.runs() != image || b.sizes() != "4 of 4, 0" || b.greets("web") != "two" || status.Course != nil || status.AppliedBundle != v2.Digest {
		t.Errorf("runs %s with %s pods and %s; status %+v", b.runs(), b.sizes(), b.greets("web"), status)
	}
}

func TestCanaryFailsByAMetric(t *testing.T) {
	b, load := measured(t, "", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"analysis": [`+failsAbove5+`]}]}}`)
	good := b.image("v1", "ready")
	v1 := b.rollOut(minute, b.configured(good, "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	web := b.reaches(v1alpha1.PhasePaused, v2) // there is nothing to judge by
	if web.Status.Verdict.Outcome != v1alpha1.VerdictInconclusive || b.sizes() != "2 of 2, 2" {
		t.Errorf("verdict %+v with %s pods", web.Status.Verdict, b.sizes())
	}
	load.answer.Store("9")
	b.approve(1, v2)
	web = b.reaches(v1alpha1.PhaseFailed, v2)
	b.alone()
	b.isQuiet()
	if verdict := web.Status.Verdict; verdict.Outcome != v1alpha1.VerdictFail || verdict.Reason != "MetricOutOfRange" {
		t.Errorf("verdict %+v", verdict)
	}
	if b.runs() != good || b.sizes() != "4 of 4, 0" || b.deployment().Annotations[manifests.AnnotationFailedBundle] != v2.Digest {
		t.Errorf("runs %s with %s pods, annotations %v", b.runs(), b.sizes(), b.deployment().Annotations)
	}
	b.applyRollout(minute, &v1) // the revert
	b.reaches(v1alpha1.PhaseHealthy, v1)
}

func TestNewerVersionStartsFromStable(t *testing.T) {
	b, _ := measured(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}]}}`)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.configured(b.image("v1", "ready"), "one")))
	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	b.waitsAt(1, v2, "2 of 2, 2")
	v3 := b.rollOut(minute, b.configured(b.image("v3", "ready"), "three"))
	b.waitsAt(1, v3, "2 of 2, 2")
	if b.runs() != b.imageName("v1") || b.greets("web") != "one" {
		t.Errorf("stable runs %s with %s", b.runs(), b.greets("web"))
	}
	b.approve(1, v3)
	b.reaches(v1alpha1.PhaseHealthy, v3)
	b.alone()
}

func TestDeletingInTheMiddleFinishesOnStable(t *testing.T) {
	for name, strategy := range map[string]string{
		"canary":     `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 50}, {"pause": {}}]}}`,
		"blue-green": `{"blueGreen": {"progressDeadline": "1m", "scaleDownDelay": "1h"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := measured(t, "1", strategy)
			b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.configured(b.image("v1", "ready"), "one")))
			v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
			b.waitsAt(map[string]int{"canary": 1, "blue-green": 2}[name], v2, map[string]string{"canary": "2 of 2, 2", "blue-green": "4 of 4, 4"}[name])
			if err := b.client.Delete(b.ctx, b.rollout()); err != nil {
				t.Fatal(err)
			}
			b.eventually("the Rollout is gone", func() bool { return b.rollout() == nil })
			b.alone()
			b.eventually("stable serves in full", func() bool { return b.sizes() == "4 of 4, 0" })
			if b.runs() != b.imageName("v1") || len(b.selects("web")) != 1 {
				t.Errorf("runs %s, the Service selects %v", b.runs(), b.selects("web"))
			}
			for _, object := range []metav1.Object{b.deployment()} {
				if got := managers(object); strings.Contains(strings.Join(got, " "), manifests.RolloutManager) {
					t.Errorf("managers %q", got)
				}
			}
		})
	}
}

// Pods do not see by themselves that their variables come from another ConfigMap by now.
func TestConfigurationAloneIsAVersion(t *testing.T) {
	b, _ := measured(t, "1", `{"canary": {"progressDeadline": "1m", "steps": [{"weight": 25}, {"pause": {}}]}}`)
	image := b.image("v1", "ready")
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.configured(image, "one")))
	pods := b.pods()
	v2 := b.rollOut(minute, b.configured(image, "two"))
	b.waitsAt(1, v2, "3 of 3, 1")
	b.approve(1, v2)
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()
	for _, pod := range b.pods() {
		if slices.Contains(pods, pod) {
			t.Errorf("pod %s runs on with what it was configured with before", pod)
		}
	}
}

// selects is the selector of a Service.
func (b *bed) selects(name string) map[string]string {
	b.Helper()
	var service corev1.Service
	if !b.named(name, &service) {
		return nil
	}
	return service.Spec.Selector
}

// reachedBy are the images of the pods that a Service sends to.
func (b *bed) reachedBy(name string) string {
	b.Helper()
	var pods corev1.PodList
	selector := b.selects(name)
	if selector == nil {
		return "no Service"
	}
	if err := b.client.List(b.ctx, &pods, client.InNamespace(b.namespace), client.MatchingLabels(selector)); err != nil {
		b.Fatal(err)
	}
	images := map[string]bool{}
	for i := range pods.Items {
		images[strings.TrimPrefix(pods.Items[i].Spec.Containers[0].Image, b.imageName(""))] = true
	}
	return strings.Trim(fmt.Sprint(images), "map[]")
}

func TestBlueGreenSwitchesAndSwitchesBack(t *testing.T) {
	after := strings.Replace(failsAbove5, `"load", "range"`, `"after", "initialDelay": "2s", "range"`, 1)
	b, load := measured(t, "1", `{"blueGreen": {"progressDeadline": "1m", "approve": true, "before": [`+failsAbove5+`], "after": [`+after+`]}}`)
	v1 := b.rollOut(minute, b.configured(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)

	v2 := b.rollOut(minute, b.configured(b.image("v2", "ready"), "two"))
	b.waitsAt(2, v2, "4 of 4, 4")
	b.eventually("the new version is shown", func() bool { return b.reachedBy("web-canary") == "v2:true" })
	b.isQuiet()
	if got := b.reachedBy("web"); got != "v1:true" {
		t.Errorf("before the switch the Service sends to %s", got)
	}
	b.approve(2, v2)
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.alone()
	b.isQuiet()
	if got := b.reachedBy("web"); got != "v2:true" || len(b.selects("web")) != 1 || b.sizes() != "4 of 4, 0" {
		t.Errorf("in the end the Service selects %v and sends to %s; %s pods", b.selects("web"), got, b.sizes())
	}

	v3 := b.rollOut(minute, b.configured(b.image("v3", "ready"), "three"))
	b.waitsAt(2, v3, "4 of 4, 4")
	load.answer.Store("9")
	b.approve(2, v3)
	b.eventually("traffic is switched", func() bool { return b.reachedBy("web") == "v3:true" })
	b.eventually("traffic is switched back", func() bool { return b.reachedBy("web") == "v2:true" })
	web := b.reaches(v1alpha1.PhaseFailed, v3)
	b.alone()
	b.isQuiet()
	if web.Status.Verdict.Reason != "MetricOutOfRange" || b.reachedBy("web") != "v2:true" || b.greets("web") != "two" {
		t.Errorf("verdict %+v; the Service sends to %s; greets %s", web.Status.Verdict, b.reachedBy("web"), b.greets("web"))
	}
}

func TestRefusesStrategiesThatMakeNoSense(t *testing.T) {
	for message, strategy := range map[string]string{
		"{{canry}} is unknown":        `{"canary": {"steps": [{"analysis": [{"name": "load", "range": {"query": "load{pod=~\"{{canry}}\"}", "max": 5}}]}]}}`,
		"without {{pods}} or":         `{"canary": {"steps": [{"analysis": [{"name": "load", "relative": {"query": "load", "above": "0.1"}}]}]}}`,
		"without a router":            `{"canary": {"steps": [{"header": {"name": "a", "value": "b"}}]}}`,
		"needs a canary and":          `{"canary": {"steps": [{"analysis": [{"name": "load", "range": {"query": "load{service=~\"{{service}}\"}", "max": 5}}]}]}}`,
		"query is missing":            `{"canary": {"steps": [{"analysis": [{"name": "load", "range": {"max": 5}}]}]}}`,
		"exclude each other":          `{"canary": {"steps": [{"analysis": [{"name": "load", "range": {"query": "load", "max": 5}, "http": {"url": "http://x", "value": "body"}}]}]}}`,
		"errors and latency n":        `{"canary": {"steps": [{"analysis": [{"name": "load", "errors": {"total": "{{pods}}", "bad": "{{pods}}"}, "http": {"url": "http://x", "value": "body"}}]}]}}`,
		"a GET has none":              `{"canary": {"steps": [{"analysis": [{"name": "load", "range": {"max": 5}, "http": {"url": "http://x", "body": "x", "value": "body"}}]}]}}`,
		"value: \"bod.x\"":            `{"canary": {"steps": [{"analysis": [{"name": "load", "range": {"max": 5}, "http": {"url": "http://x", "value": "bod.x"}}]}]}}`,
		"same for both":               `{"canary": {"steps": [{"analysis": [{"name": "load", "relative": {"above": 1}, "http": {"url": "http://x", "value": "body"}}]}]}}`,
		"unknown field \"contaners\"": `{"canary": {"steps": [{"analysis": [{"name": "try", "job": {"template": {"spec": {"template": {"spec": {"contaners": []}}}}}}]}]}}`,
		"containers is missing":       `{"canary": {"steps": [{"analysis": [{"name": "try", "job": {"template": {"spec": {"template": {"spec": {}}}}}}]}]}}`,
		"only labels and annotat":     `{"canary": {"steps": [{"analysis": [{"name": "try", "job": {"template": {"metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": [{"name": "x"}]}}}}}}]}]}}`,
		"ttlSecondsAfterFinished":     `{"canary": {"steps": [{"analysis": [{"name": "try", "job": {"template": {"spec": {"ttlSecondsAfterFinished": 5, "template": {"spec": {"containers": [{"name": "x"}]}}}}}}]}]}}`,
		"two of that name":            `{"canary": {"steps": [{"weight": 5}], "analysis": [` + failsAbove5 + `, ` + failsAbove5 + `]}}`,
	} {
		t.Run(message, func(t *testing.T) {
			b, _ := measured(t, "1", strategy)
			b.applyRollout(minute, nil)
			b.eventually("it says what is wrong", func() bool {
				for _, c := range b.rollout().Status.Conditions {
					if c.Type == v1alpha1.ConditionStalled && strings.Contains(c.Message, message) {
						return true
					}
				}
				return false
			})
			b.isQuiet()
		})
	}
}

func TestTheAPIRefusesTwoStrategies(t *testing.T) {
	b := newBed(t)
	for want, strategy := range map[string]v1alpha1.Strategy{
		"exactly one of rolling":  {Rolling: &v1alpha1.RollingStrategy{}, BlueGreen: &v1alpha1.BlueGreenStrategy{}},
		"give exactly one of":     {},
		"exactly one of weight, ": {Canary: &v1alpha1.CanaryStrategy{Steps: []v1alpha1.CanaryStep{{Weight: new(int32(5)), Replicas: new(int32(5))}}}},
	} {
		err := b.client.Create(b.ctx, &v1alpha1.Rollout{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: b.namespace},
			Spec:       v1alpha1.RolloutSpec{WorkloadRef: v1alpha1.WorkloadRef{Name: "web"}, Strategy: strategy},
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
