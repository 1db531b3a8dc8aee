package rollout_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout"
)

func configWith(tag, behaviour string) v1.Config {
	return v1.Config{Labels: map[string]string{cluster.BehaviourLabel: behaviour}, Env: []string{"TAG=" + tag}}
}

const minute = time.Minute

func managers(object metav1.Object) []string {
	var names []string
	for _, e := range object.GetManagedFields() {
		if e.Subresource == "" {
			names = append(names, e.Manager)
		}
	}
	return names
}

// pods returns the names of the pods that stay, in order.
func (b *bed) pods() []string {
	b.Helper()
	var list corev1.PodList
	if err := b.client.List(b.ctx, &list, client.InNamespace(b.namespace)); err != nil {
		b.Fatal(err)
	}
	var names []string
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			names = append(names, pod.Name)
		}
	}
	slices.Sort(names)
	return names
}

func TestTakesOverWhatTheReconcilerApplied(t *testing.T) {
	b := newBed(t)
	image := b.image("v1", "ready")
	for _, object := range b.objects(b.web(image, "hello")) {
		object.SetLabels(map[string]string{manifests.LabelApplication: "shop", "gone": "soon"})
		b.apply(manifests.FieldManager, object)
	}
	b.eventually("v1 runs without a Rollout", func() bool { return b.deployment().Status.AvailableReplicas == 3 })
	pods := b.pods()
	bundle := b.rollOut(minute, b.web(image, "hello"))
	web := b.reaches(v1alpha1.PhaseHealthy, bundle)

	for _, object := range []client.Object{&corev1.ConfigMap{}, &corev1.Secret{}, &corev1.Service{}, &appsv1.Deployment{}} {
		b.get(object)
		if got := managers(object); slices.Contains(got, manifests.FieldManager) || !slices.Contains(got, manifests.RolloutManager) {
			t.Errorf("%T: managers %q", object, got)
		}
		if _, still := object.GetLabels()["gone"]; still || object.GetLabels()[manifests.LabelApplication] != "shop" {
			t.Errorf("%T: labels %v", object, object.GetLabels())
		}
		if object.GetAnnotations()[manifests.AnnotationBundle] != bundle.Digest {
			t.Errorf("%T: annotations %v", object, object.GetAnnotations())
		}
	}
	if template := b.deployment().Spec.Template; !slices.Equal(b.pods(), pods) || len(template.Annotations) != 0 || len(template.Labels) != 1 {
		t.Errorf("the pods were touched: %q, were %q; template %v", b.pods(), pods, template.ObjectMeta)
	}
	if ready := web.Status.Conditions; len(ready) != 1 || ready[0].Type != v1alpha1.ConditionReady || ready[0].Status != metav1.ConditionTrue {
		t.Errorf("conditions %+v", ready)
	}
	if web.Status.Verdict.SetDigest != bundle.SetDigest || web.Status.Stable.Digest != bundle.Digest || len(web.Status.Verdict.Samples) == 0 {
		t.Errorf("status %+v", web.Status)
	}
	b.eventually("the metric follows the status", func() bool {
		return slices.Equal(b.gathered("slipway_rollout_phase"), []string{b.namespace + " Healthy web 1"})
	})

	other := b.rollOut(minute, b.web(image, "good bye"))
	b.reaches(v1alpha1.PhaseHealthy, other)
	for _, pod := range b.pods() {
		if slices.Contains(pods, pod) {
			t.Errorf("pod %s runs on with what it was configured with before", pod)
		}
	}
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.web(image, "hello")))
	if template := b.deployment().Spec.Template; len(template.Annotations) != 0 {
		t.Errorf("back on what was taken over, the template is marked: %v", template.Annotations)
	}
}

func TestFailReturnsAndRevertChangesNothingThatRuns(t *testing.T) {
	b := newBed(t)
	good := b.image("v1", "ready")
	v1 := b.rollOut(minute, b.web(good, "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	began := time.Now()
	v2 := b.rollOut(minute, b.web(b.image("v2", "crash"), "two"))
	web := b.reaches(v1alpha1.PhaseFailed, v2)
	t.Logf("crash loop: stable serves again after %s", time.Since(began).Round(time.Millisecond))

	verdict := web.Status.Verdict
	if verdict.Outcome != v1alpha1.VerdictFail || verdict.Reason != "Crashing" || verdict.Bundle != v2.Digest || len(verdict.Samples) == 0 {
		t.Errorf("verdict %+v", verdict)
	}
	var config corev1.ConfigMap
	b.get(&config)
	if b.runs() != good || config.Data["greeting"] != "one" {
		t.Errorf("runs %s with %v", b.runs(), config.Data)
	}
	if b.deployment().Annotations[manifests.AnnotationFailedBundle] != v2.Digest {
		t.Errorf("annotations %v", b.deployment().Annotations)
	}
	for _, words := range [][]string{{"Warning", "RolloutFailed", "has crashed 3 times"}, {"StableRestored", v1.Name}} {
		if !b.wasTold(words...) {
			t.Errorf("no event with %q in %q", words, b.tellings())
		}
	}
	if got := b.gathered("slipway_rollout_verdicts_total"); !slices.Equal(got, []string{"Fail 1", "Inconclusive 0", "Pass 1"}) {
		t.Errorf("verdicts counted: %q", got)
	}

	b.eventually("pods of v2 are gone", func() bool { return len(b.pods()) == 3 })
	pods := b.pods()
	b.applyRollout(minute, &v1) // the revert
	web = b.reaches(v1alpha1.PhaseHealthy, v1)
	b.eventually("the mark is gone", func() bool { return b.deployment().Annotations[manifests.AnnotationFailedBundle] == "" })
	b.isQuiet()
	if !slices.Equal(b.pods(), pods) || web.Status.Verdict.Reason != "AlreadyStable" {
		t.Errorf("pods %q, were %q; verdict %+v", b.pods(), pods, web.Status.Verdict)
	}
}

func TestNeverReadyFailsAtTheDeadline(t *testing.T) {
	b := newBed(t)
	good := b.image("v1", "ready")
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(4*time.Second, b.web(good, "one")))
	web := b.reaches(v1alpha1.PhaseFailed, b.rollOut(4*time.Second, b.web(b.image("v2", "never-ready"), "two")))
	if took := web.Status.Verdict.At.Sub(web.Status.StartedAt.Time); took < 3*time.Second || took > 8*time.Second {
		t.Errorf("judged after %s", took)
	}
	if web.Status.Verdict.Reason != "NeverReady" || b.runs() != good {
		t.Errorf("verdict %+v, runs %s", web.Status.Verdict, b.runs())
	}
}

func TestMissingImagePausesUntilItIsThere(t *testing.T) {
	b := newBed(t)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(2*time.Second, b.web(b.image("v1", "ready"), "one")))
	v2 := b.rollOut(2*time.Second, b.web(b.imageName("late"), "two"))
	web := b.reaches(v1alpha1.PhasePaused, v2)
	if web.Status.Verdict.Outcome != v1alpha1.VerdictInconclusive || web.Status.Verdict.Reason != "ImagePull" || b.runs() != b.imageName("late") {
		t.Errorf("verdict %+v, runs %s", web.Status.Verdict, b.runs())
	}
	b.image("late", "ready")
	b.reaches(v1alpha1.PhaseHealthy, v2)
}

func TestRefusedByTheAPIServer(t *testing.T) {
	b := newBed(t)
	good := b.image("v1", "ready")
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.web(good, "one")))
	invalid := strings.ReplaceAll(b.web(good, "two"), "app: web", "app: other") // a selector cannot be changed
	web := b.reaches(v1alpha1.PhaseFailed, b.rollOut(minute, invalid))
	var config corev1.ConfigMap
	b.get(&config)
	if web.Status.Verdict.Reason != "RejectedByAPIServer" || config.Data["greeting"] != "one" {
		t.Errorf("verdict %+v, config %v", web.Status.Verdict, config.Data)
	}
}

func TestFirstVersionFails(t *testing.T) {
	b := newBed(t)
	image := b.image("v1", "crash")
	web := b.reaches(v1alpha1.PhaseFailed, b.rollOut(minute, b.web(image, "one")))
	if web.Status.Stable != nil || b.runs() != image || !strings.Contains(web.Status.Verdict.Message, "nothing to return to") {
		t.Errorf("status %+v, runs %s", web.Status, b.runs())
	}
}

func TestHealsDriftAndIsQuietOtherwise(t *testing.T) {
	b := newBed(t)
	image := b.image("v1", "ready")
	bundle := b.rollOut(minute, b.web(image, "one"))
	b.reaches(v1alpha1.PhaseHealthy, bundle)
	var worst time.Duration
	for kind, change := range map[string]struct {
		object client.Object
		patch  string
		healed func() bool
	}{
		"ConfigMap": {&corev1.ConfigMap{}, `{"data":{"greeting":"drift"}}`, func() bool {
			var config corev1.ConfigMap
			b.get(&config)
			return config.Data["greeting"] == "one"
		}},
		"Secret": {&corev1.Secret{}, `{"stringData":{"password":"drift"}}`, func() bool {
			var secret corev1.Secret
			b.get(&secret)
			return string(secret.Data["password"]) == "of-one"
		}},
		"Deployment": {&appsv1.Deployment{}, `{"spec":{"replicas":1}}`, func() bool { return *b.deployment().Spec.Replicas == 3 }},
		"Service": {&corev1.Service{}, `{"spec":{"selector":{"app":"drift"}}}`, func() bool {
			var service corev1.Service
			b.get(&service)
			return service.Spec.Selector["app"] == "web"
		}},
	} {
		change.object.SetNamespace(b.namespace)
		change.object.SetName("web")
		began := time.Now()
		if err := b.client.Patch(b.ctx, change.object, client.RawPatch(types.MergePatchType, []byte(change.patch)), client.FieldOwner("meddler-of-"+kind)); err != nil {
			t.Fatal(err)
		}
		b.eventually(kind+" is healed", change.healed)
		worst = max(worst, time.Since(began))
		b.eventually("who changed it is told", func() bool { return b.wasTold("Drift", kind, "changed by \"meddler-of-"+kind+"\"") })
	}
	t.Logf("drift healed after at most %s", worst.Round(time.Millisecond))
	if worst > time.Second {
		t.Errorf("healed after %s", worst)
	}
	if err := b.client.Delete(b.ctx, b.deployment()); err != nil {
		t.Fatal(err)
	}
	b.eventually("the Deployment is there again", func() bool {
		var deployment appsv1.Deployment
		err := b.client.Get(b.ctx, client.ObjectKey{Namespace: b.namespace, Name: "web"}, &deployment)
		return err == nil && deployment.Status.AvailableReplicas == 3
	})
	b.isQuiet()
	// What others add is none of our business.
	if err := b.client.Patch(b.ctx, b.deployment(), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"team":"shop"}}}`))); err != nil {
		t.Fatal(err)
	}
	b.isQuiet()
}

// isQuiet holds when the loop comes to rest: no request for a second.
func (b *bed) isQuiet() {
	b.Helper()
	last, since := b.requests.Load(), time.Now()
	b.eventually("no requests for a second", func() bool {
		if now := b.requests.Load(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	})
	b.steady("no requests", func() bool { return b.requests.Load() == last })
}

func TestSurvivesKills(t *testing.T) {
	t.Parallel()
	for _, failpoint := range []string{rollout.FailpointVerdict, rollout.FailpointTraffic} {
		t.Run(failpoint, func(t *testing.T) {
			b := newBed(t)
			good := b.image("v1", "ready")
			b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.web(good, "one")))
			b.failpoint.Store(failpoint)
			v2 := b.rollOut(minute, b.web(b.image("v2", "crash"), "two"))
			rounds := map[string]int{rollout.FailpointVerdict: 1, rollout.FailpointTraffic: 2}[failpoint] // forward, and back
			for round := range rounds {
				b.eventually("it is killed", func() bool { return b.kills.Load() == int64(round+1) })
				b.stop()
				if round+1 < rounds {
					b.failpoint.Store(failpoint)
				}
				b.start()
			}
			web := b.reaches(v1alpha1.PhaseFailed, v2)
			if web.Status.Verdict.Reason != "Crashing" || b.runs() != good {
				t.Errorf("verdict %+v, runs %s", web.Status.Verdict, b.runs())
			}
			b.stop()
			b.start()
			b.isQuiet()
			if b.runs() != good {
				t.Errorf("a restart brought %s back", b.runs())
			}
		})
	}
}

func TestTrafficReturnsWhenTheVerdictCannotBeWritten(t *testing.T) {
	b := newBed(t)
	good := b.image("v1", "ready")
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.web(good, "one")))
	bad := b.image("v2", "crash")
	v2 := b.rollOut(20*time.Second, b.web(bad, "two"))
	b.eventually("v2 comes in", func() bool { return b.runs() == bad && b.rollout().Status.AppliedBundle == v2.Digest })
	b.statusDown.Store(true)
	b.eventually("traffic returns", func() bool { return b.runs() == good })
	if verdict := b.rollout().Status.Verdict; verdict != nil {
		t.Fatalf("verdict %+v was written", verdict)
	}
	b.stop()
	b.statusDown.Store(false)
	b.start()
	web := b.reaches(v1alpha1.PhaseFailed, v2)
	if web.Status.Verdict.Outcome != v1alpha1.VerdictFail || b.runs() != good {
		t.Errorf("verdict %+v, runs %s", web.Status.Verdict, b.runs())
	}
}

func TestDeletingHandsBack(t *testing.T) {
	b := newBed(t)
	good := b.image("v1", "ready")
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.web(good, "one")))
	stuck := b.image("v2", "never-ready")
	v2 := b.rollOut(minute, b.web(stuck, "two"))
	b.eventually("v2 comes in", func() bool { return b.runs() == stuck && b.rollout().Status.AppliedBundle == v2.Digest })
	if err := b.client.Delete(b.ctx, b.rollout()); err != nil {
		t.Fatal(err)
	}
	b.eventually("the Rollout is gone", func() bool { return b.rollout() == nil })
	if b.runs() != good {
		t.Errorf("runs %s", b.runs())
	}
	for _, object := range []client.Object{&corev1.ConfigMap{}, &corev1.Secret{}, &corev1.Service{}, &appsv1.Deployment{}} {
		b.get(object)
		got := managers(object)
		if slices.Contains(got, manifests.RolloutManager) || !slices.Contains(got, manifests.FieldManager) || object.GetAnnotations()[manifests.AnnotationBundle] != "" {
			t.Errorf("%T: managers %q, annotations %v", object, got, object.GetAnnotations())
		}
	}
}

func TestOldBundlesAreCollected(t *testing.T) {
	b := newBed(t)
	image := b.image("v1", "ready")
	for i := range 14 { // pods stay as they are, so each passes at once
		b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.web(image, fmt.Sprintf("greeting-%d", i))))
	}
	for _, list := range []client.ObjectList{&appsv1.ControllerRevisionList{}, &corev1.SecretList{}} {
		b.eventually("only ten old ones are left", func() bool {
			if err := b.client.List(b.ctx, list, client.InNamespace(b.namespace)); err != nil {
				t.Fatal(err)
			}
			stored := 0
			switch list := list.(type) {
			case *appsv1.ControllerRevisionList:
				stored = len(list.Items)
			case *corev1.SecretList:
				stored = len(list.Items) - 1 // the Bundle's own
			}
			return stored == 11
		})
	}
}

func TestRefusesARolloutOfNoApplication(t *testing.T) {
	b := newBed(t)
	web := &v1alpha1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: b.namespace},
		Spec:       v1alpha1.RolloutSpec{WorkloadRef: v1alpha1.WorkloadRef{Name: "web"}, Strategy: v1alpha1.Strategy{Rolling: &v1alpha1.RollingStrategy{}}},
	}
	b.create(web)
	b.eventually("it says what is missing", func() bool {
		conditions := b.rollout().Status.Conditions
		return slices.ContainsFunc(conditions, func(c metav1.Condition) bool {
			return c.Type == v1alpha1.ConditionStalled && strings.Contains(c.Message, manifests.LabelApplication)
		})
	})
	b.isQuiet()
	if err := b.client.Delete(b.ctx, web); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}
