package rollout_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// inOrder is a bed for a StatefulSet of four pods that come and go one after the other.
func inOrder(t *testing.T, strategy string) (*bed, *gauge) {
	t.Helper()
	b, g := measured(t, "1", strategy)
	b.kind = "StatefulSet"
	return b, g
}

// ordered is what configured is, with a StatefulSet.
func (b *bed) ordered(image, greeting string) string {
	return strings.NewReplacer("kind: Deployment", "kind: StatefulSet", "replicas: 4", "replicas: 4\n  serviceName: web").Replace(b.configured(image, greeting))
}

func (b *bed) set() *appsv1.StatefulSet {
	b.Helper()
	var set appsv1.StatefulSet
	b.get(&set)
	return &set
}

// fleet is the image tag and the greeting that each pod has, by ordinal, of those that are ready.
func (b *bed) fleet() string {
	b.Helper()
	var list corev1.PodList
	if err := b.client.List(b.ctx, &list, client.InNamespace(b.namespace)); err != nil {
		b.Fatal(err)
	}
	slices.SortFunc(list.Items, func(one, other corev1.Pod) int { return strings.Compare(one.Name, other.Name) })
	var words []string
	for i := range list.Items {
		pod := &list.Items[i]
		word := "-"
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil {
				word = strings.TrimPrefix(pod.Spec.Containers[0].Image, b.imageName("")) + ":" + b.greets(pod.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name)
			}
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// sails waits until the pods are these.
func (b *bed) sails(want string) {
	b.Helper()
	got := ""
	b.eventually("the pods are "+want, func() bool {
		got = b.fleet()
		return got == want
	})
}

// copies are the greetings of the copies of the ConfigMap, in order.
func (b *bed) copies() string {
	b.Helper()
	var list corev1.ConfigMapList
	if err := b.client.List(b.ctx, &list, client.InNamespace(b.namespace), client.HasLabels{manifests.LabelCanary}); err != nil {
		b.Fatal(err)
	}
	var words []string
	for i := range list.Items {
		words = append(words, list.Items[i].Data["greeting"])
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func (b *bed) partition() int32 {
	b.Helper()
	return *b.set().Spec.UpdateStrategy.RollingUpdate.Partition
}

func TestStatefulSetTakesAVersionInByBatches(t *testing.T) {
	b, asked := inOrder(t, `{"rolling": {"progressDeadline": "1m", "batches": [{"percent": 25, "pause": {}}, {"percent": 75, "analysis": [`+failsAbove5+`]}]}}`)
	v1 := b.rollOut(minute, b.ordered(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	b.sails("v1:one v1:one v1:one v1:one")
	b.isQuiet()

	v2 := b.rollOut(minute, b.ordered(b.image("v2", "ready"), "two"))
	b.sails("v1:one v1:one v1:one v2:two")
	b.eventually("it waits for a person", func() bool { c := b.rollout().Status.Course; return c != nil && c.Step == 1 })
	b.isQuiet()
	if b.greets("web") != "one" || b.copies() != "one two" || b.partition() != 3 {
		t.Errorf("in the middle web greets %s, the copies %s, the partition is %d", b.greets("web"), b.copies(), b.partition())
	}

	// Who takes the partition, or a copy, does not bring pods to another version.
	change := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"updateStrategy":{"rollingUpdate":{"partition":4}}}}`))
	if err := b.client.Patch(b.ctx, b.set(), change, client.FieldOwner("meddler")); err != nil {
		t.Fatal(err)
	}
	b.eventually("who took the partition is told", func() bool { return b.wasTold("Drift", "StatefulSet", "meddler") && b.partition() == 3 })
	var pod corev1.Pod
	b.named("web-3", &pod)
	name := pod.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name
	if err := b.client.Delete(b.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: name}}); err != nil {
		t.Fatal(err)
	}
	b.eventually("the copy comes back", func() bool { return b.copies() == "one two" })

	b.stop()
	b.approve(1, v2)
	b.start()
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.sails("v2:two v2:two v2:two v2:two")
	b.eventually("stable before is gone", func() bool { return b.copies() == "two" && b.greets("web") == "two" })
	b.isQuiet()
	if want := `load{pod=~"(web-1|web-2|web-3)"}[1s]`; asked.asked.Load() != want {
		t.Errorf("asked for %s, want %s", asked.asked.Load(), want)
	}
	web := b.rollout()
	if b.partition() != 0 || web.Status.Course != nil || web.Status.AppliedBundle != v2.Digest {
		t.Errorf("partition %d, status %+v", b.partition(), web.Status)
	}

	// What is not the pods' business replaces none.
	uids := b.uids()
	v3 := b.rollOut(minute, strings.Replace(b.ordered(b.imageName("v2"), "two"), "ports: [{port: 80}]", "ports: [{port: 81}]", 1))
	b.approve1(v3)
	b.reaches(v1alpha1.PhaseHealthy, v3)
	b.isQuiet()
	if got := b.uids(); !slices.Equal(got, uids) {
		t.Errorf("another port of the Service replaced pods: %q, before %q", got, uids)
	}
}

// approve1 is a person's yes to the pause after the first batch.
func (b *bed) approve1(bundle v1alpha1.BundleRef) {
	b.Helper()
	b.eventually("it waits for a person", func() bool {
		course := b.rollout().Status.Course
		return course != nil && course.Canary != nil && course.Canary.Digest == bundle.Digest && course.Step == 1
	})
	b.approve(1, bundle)
}

// uids tell pods from others of the same name.
func (b *bed) uids() (uids []string) {
	b.Helper()
	var list corev1.PodList
	if err := b.client.List(b.ctx, &list, client.InNamespace(b.namespace)); err != nil {
		b.Fatal(err)
	}
	for i := range list.Items {
		uids = append(uids, list.Items[i].Name+" "+string(list.Items[i].UID))
	}
	slices.Sort(uids)
	return uids
}

// A StatefulSet waits for a pod that never becomes ready, also on the way back.
func TestStatefulSetReturnsFromAPodThatIsNeverReady(t *testing.T) {
	b, load := inOrder(t, `{"rolling": {"progressDeadline": "4s", "batches": [{"percent": 50, "pause": {"for": "1s"}, "analysis": [`+failsAbove5+`]}]}}`)
	v1 := b.rollOut(minute, b.ordered(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	b.sails("v1:one v1:one v1:one v1:one")
	before := b.uids()
	for reason, content := range map[string]string{
		"NeverReady":          b.ordered(b.image("v2", "never-ready"), "two"),
		"RejectedByAPIServer": strings.Replace(b.ordered(b.image("v3", "ready"), "three"), "  serviceName: web", "  serviceName: web\n  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]", 1),
		"MetricOutOfRange":    b.ordered(b.image("v4", "ready"), "four"),
	} {
		load.answer.Store(map[bool]string{true: "9", false: "1"}[reason == "MetricOutOfRange"])
		bundle := b.rollOut(minute, content)
		web := b.reaches(v1alpha1.PhaseFailed, bundle)
		b.sails("v1:one v1:one v1:one v1:one")
		b.eventually("nothing of it is left: "+reason, func() bool { return b.copies() == "one" })
		b.isQuiet()
		if verdict := web.Status.Verdict; verdict.Outcome != v1alpha1.VerdictFail || verdict.Reason != reason {
			t.Errorf("verdict %+v, want %s", verdict, reason)
		}
		if set := b.set(); b.partition() != 0 || set.Annotations[manifests.AnnotationFailedBundle] != bundle.Digest {
			t.Errorf("%s: partition %d, annotations %v", reason, b.partition(), set.Annotations)
		}
		if after := b.uids(); !slices.Equal(after[:2], before[:2]) {
			t.Errorf("%s: pods of the other half were replaced: %q, before %q", reason, after, before)
		}
		if evicted := b.wasTold("PodsEvicted", "web-3"); reason == "NeverReady" && !evicted {
			t.Errorf("nobody was told of the pod that was in the way: %q", b.tellings())
		}
		b.applyRollout(minute, &v1) // the revert
		b.reaches(v1alpha1.PhaseHealthy, v1)
	}
	if got := strings.Count(strings.Join(b.tellings(), "\n"), "PodsEvicted"); got != 1 {
		t.Errorf("pods were evicted %d times, want once", got)
	}
}

func TestStatefulSetWhoseFirstVersionNeverCameUp(t *testing.T) {
	b, _ := inOrder(t, `{"rolling": {"progressDeadline": "5s"}}`)
	v1 := b.rollOut(minute, b.ordered(b.image("v1", "crash"), "one"))
	b.reaches(v1alpha1.PhaseFailed, v1)
	v2 := b.rollOut(minute, b.ordered(b.image("v2", "ready"), "two"))
	b.reaches(v1alpha1.PhaseHealthy, v2)
	b.sails("v2:two v2:two v2:two v2:two")
	if !b.wasTold("PodsEvicted", "web-0") {
		t.Errorf("nobody was told of the pod that was in the way: %q", b.tellings())
	}
	b.isQuiet()
}

// What comes in while another version is half in place starts from stable, and so does a revert by hand.
func TestStatefulSetNewerVersionStartsFromStable(t *testing.T) {
	b, _ := inOrder(t, `{"rolling": {"progressDeadline": "1m", "batches": [{"percent": 50, "pause": {}}]}}`)
	v1 := b.rollOut(minute, b.ordered(b.image("v1", "ready"), "one"))
	b.reaches(v1alpha1.PhaseHealthy, v1)
	b.rollOut(minute, b.ordered(b.image("v2", "ready"), "two"))
	b.sails("v1:one v1:one v2:two v2:two")
	b.rollOut(minute, b.ordered(b.imageName("missing"), "three"))
	b.sails("v1:one v1:one v1:one -")
	b.applyRollout(minute, &v1) // a revert before anything was judged
	b.reaches(v1alpha1.PhaseHealthy, v1)
	b.sails("v1:one v1:one v1:one v1:one")
	b.eventually("nothing is left of the others", func() bool { return b.copies() == "one" && b.rollout().Status.Course == nil })
	b.isQuiet()
}

func TestStatefulSetIsHandedBack(t *testing.T) {
	b, _ := inOrder(t, `{"rolling": {"progressDeadline": "1m", "batches": [{"percent": 50, "pause": {}}]}}`)
	b.reaches(v1alpha1.PhaseHealthy, b.rollOut(minute, b.ordered(b.image("v1", "ready"), "one")))
	b.rollOut(minute, b.ordered(b.imageName("missing"), "two"))
	b.sails("v1:one v1:one v1:one -")
	if err := b.client.Delete(b.ctx, b.rollout()); err != nil {
		t.Fatal(err)
	}
	b.eventually("the Rollout is gone", func() bool { return b.rollout() == nil })
	b.eventually("its copies are gone", func() bool { return b.copies() == "" })
	b.sails("v1:one v1:one v1:one v1:one")
	set := b.set()
	if got := managers(set); strings.Contains(strings.Join(got, " "), manifests.RolloutManager) {
		t.Errorf("managers %q", got)
	}
	if got := set.Spec.Template.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name; got != "web" || b.partition() != 0 {
		t.Errorf("configured by %s, partition %d", got, b.partition())
	}
}

func TestStatefulSetRefusals(t *testing.T) {
	once := `{"rolling": {"progressDeadline": "1m"}}`
	for message, given := range map[string]struct{ strategy, from, to string }{
		"give rolling, with batches":          {strategy: `{"canary": {"steps": [{"weight": 50}]}}`},
		"no version can run beside it":        {strategy: `{"blueGreen": {}}`},
		"use RollingUpdate":                   {once, "  serviceName: web", "  serviceName: web\n  updateStrategy: {type: OnDelete}"},
		"(use strategy.rolling.batches)":      {once, "  serviceName: web", "  serviceName: web\n  updateStrategy: {rollingUpdate: {partition: 2}}"},
		"batches must grow: 50% after 50%":    {strategy: `{"rolling": {"batches": [{"percent": 50}, {"percent": 50}]}}`},
		"{{service}} needs a canary and spec": {strategy: `{"rolling": {"batches": [{"percent": 50, "analysis": [{"name": "load", "range": {"query": "load{service=~\"{{service}}\"}", "max": 5}}]}]}}`},
	} {
		t.Run(message, func(t *testing.T) {
			b, _ := inOrder(t, given.strategy)
			b.rollOut(minute, strings.Replace(b.ordered(b.image("v1", "ready"), "one"), given.from, given.to, 1))
			b.eventually("it says what is wrong", func() bool { return b.stalls(message) })
			b.isQuiet()
		})
	}
}

func TestTheKindOfAWorkloadStays(t *testing.T) {
	b := newBed(t)
	b.applyRollout(minute, nil)
	for _, kind := range []string{"StatefulSet", "DaemonSet"} {
		web := b.rollout()
		web.Spec.WorkloadRef.Kind = kind
		err := b.client.Update(b.ctx, web)
		if want := map[string]string{"StatefulSet": "give the Rollout of the other one another name", "DaemonSet": "supported values"}[kind]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, fmt.Errorf("want %s, got %w", want, err))
		}
	}
}
