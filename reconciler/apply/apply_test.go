package apply_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/apply"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

const configMap = `
apiVersion: v1
kind: ConfigMap
metadata: {name: %s, namespace: $NS}
data: {a: "%s", b: "fixed"}
---
`

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: $NS}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example.com/web:1", env: [{name: A, value: "1"}]}
---
`

func TestCreateUpdatePrune(t *testing.T) {
	w := newWorld(t)
	both := w.set(fmt.Sprintf(configMap, "a", "1") + deployment)
	w.applied(both, "created ConfigMap a", "created Deployment web")
	w.synced()
	w.quiet()
	if changes := w.apply(both); len(changes) != 0 || len(w.requests.requests()) != 0 {
		t.Errorf("nothing changed: got %q, requests %q", changes, w.requests.requests())
	}
	changed := w.set(fmt.Sprintf(configMap, "a", "2") + deployment)
	w.applied(changed, "configured ConfigMap a")
	if got := w.requests.requests(); len(got) != 1 || !strings.HasPrefix(got[0], "PATCH") {
		t.Errorf("one object changed: got requests %q, want one PATCH", got)
	}
	w.quiet()
	w.applied(w.set(deployment), "deleted ConfigMap a")
	if got := w.requests.requests(); len(got) != 1 || !strings.HasPrefix(got[0], "DELETE") {
		t.Errorf("one object left: got requests %q, want one DELETE", got)
	}
	w.applied(w.set(deployment))
	if _, listed := w.owned[w.ref("", "ConfigMap", "a")]; listed {
		t.Error("a deleted object is still in the inventory")
	}
	live, err := w.client.AppsV1().Deployments(w.namespace).Get(w.ctx, "web", metav1.GetOptions{})
	if err != nil || live.Labels[manifests.LabelApplication] != w.app.Name {
		t.Errorf("application label: got %v, %v", live.Labels, err)
	}
}

// TestLaggingWatch plans right after each apply, when the watch cannot have caught up.
func TestLaggingWatch(t *testing.T) {
	w := newWorld(t)
	w.applied(w.set(fmt.Sprintf(configMap, "a", "0")), "created ConfigMap a")
	w.synced()
	for i := range 20 {
		set := w.set(fmt.Sprintf(configMap, "a", fmt.Sprint(i+1)))
		w.applied(set, "configured ConfigMap a")
		if p := w.compute(set); !p.Empty() {
			t.Fatalf("round %d: not empty right after the apply:\n%s", i, p)
		}
	}
}

func TestPruneLeavesAnotherObjectOfTheSameName(t *testing.T) {
	w := newWorld(t)
	keep := fmt.Sprintf(configMap, "keep", "1")
	w.apply(w.set(keep + fmt.Sprintf(configMap, "a", "1")))
	seen := w.observe(w.set(keep))
	maps := w.client.CoreV1().ConfigMaps(w.namespace)
	if err := maps.Delete(w.ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.must(maps.Create(w.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}))
	// What was seen before is out of date: the precondition has to hold.
	stale, err := plan.Compute(plan.In{Application: w.app.Name, Want: w.set(keep), Seen: seen, Owned: w.owned, Options: plan.Options{Prune: true}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.applier.Apply(w.ctx, stale, nil); err == nil {
		t.Error("deleted by an old UID")
	}
	w.eventually("the replaced object is forgotten", func() bool {
		p := w.compute(w.set(keep))
		return p.Empty() && len(p.Forgotten) == 1
	})
	w.must(maps.Get(w.ctx, "a", metav1.GetOptions{}))
}

func TestFinalizersKeepAnObjectInTheInventory(t *testing.T) {
	w := newWorld(t)
	keep := fmt.Sprintf(configMap, "keep", "1")
	w.apply(w.set(keep + fmt.Sprintf(configMap, "a", "1")))
	maps := w.client.CoreV1().ConfigMaps(w.namespace)
	w.must(maps.Patch(w.ctx, "a", types.MergePatchType, []byte(`{"metadata":{"finalizers":["example.com/wait"]}}`), by("someone")))
	w.synced()
	w.applied(w.set(keep), "deleted ConfigMap a")
	ref := w.ref("", "ConfigMap", "a")
	if _, listed := w.owned[ref]; !listed {
		t.Fatal("forgotten while it waits for a finalizer")
	}
	w.eventually("it is seen as being deleted", func() bool { p := w.compute(w.set(keep)); return p.Empty() && len(p.Kept) == 1 })
	w.must(maps.Patch(w.ctx, "a", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), by("someone")))
	w.eventually("it is forgotten", func() bool { return len(w.compute(w.set(keep)).Forgotten) == 1 })
}

func TestRejectedObject(t *testing.T) {
	w := newWorld(t)
	broken := `
apiVersion: v1
kind: Service
metadata: {name: bad, namespace: $NS}
spec: {ports: [{port: 99999}]}
---
`
	late := `
apiVersion: v1
kind: ConfigMap
metadata: {name: late, namespace: $NS, annotations: {slipway.dev/wave: "1"}}
---
`
	var events []apply.Event
	p := w.compute(w.set(broken + late + fmt.Sprintf(configMap, "good", "1")))
	result, err := w.applier.Apply(w.ctx, p, func(e apply.Event) { events = append(events, e) })
	var object *apply.ObjectError
	if !errors.As(err, &object) || !object.Rejected || object.Ref.Name != "bad" || !strings.Contains(err.Error(), "99999") {
		t.Fatalf("got %v, want the rejected Service with the server's message", err)
	}
	if len(result.Done) != 1 || result.Done[0].Ref.Name != "good" {
		t.Errorf("the rest of the stage is applied: got %+v", result.Done)
	}
	if len(result.Skipped) != 1 || result.Skipped[0].Name != "late" {
		t.Errorf("later stages wait: got %v", result.Skipped)
	}
	if len(events) != 2 {
		t.Errorf("got %d events, want 2", len(events))
	}
}

func TestSecretValuesAreNotInErrors(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.try(w.set(`
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: $NS}
type: kubernetes.io/dockerconfigjson
stringData: {.dockerconfigjson: hunter2}
`))
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want a rejection without the value", err)
	}
	_, _, err = w.try(w.set("{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: $NS}, data: {a: hunter2-hunter2}}"))
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want a rejection without the value", err)
	}
}

const widgetCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]ss.$NS.example.com}
spec:
  group: $NS.example.com
  scope: Namespaced
  names: {kind: %[2]s, plural: %[1]ss, singular: %[1]s}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
`

func TestCRDNamespaceAndObjectsInOnePlan(t *testing.T) {
	w := newWorld(t)
	set := w.set(fmt.Sprintf(widgetCRD, "widget", "Widget") + `
apiVersion: v1
kind: Namespace
metadata: {name: $NS-inner}
---
apiVersion: $NS.example.com/v1
kind: Widget
metadata: {name: first, namespace: $NS-inner}
spec: {size: 3}
`)
	w.applied(set, "created CustomResourceDefinition widgets."+w.namespace+".example.com", "created Namespace "+w.namespace+"-inner", "created Widget first")
	w.synced()
	w.quiet()
	w.applied(set)
	if got := w.requests.requests(); len(got) != 0 {
		t.Errorf("nothing changed: got requests %q", got)
	}
}

func TestKindThatIsNotServed(t *testing.T) {
	w := newWorld(t)
	set := w.set(fmt.Sprintf(configMap, "a", "1") + "{apiVersion: $NS.example.com/v1, kind: Gadget, metadata: {name: g, namespace: $NS}}")
	_, result, err := w.try(set)
	if err == nil || !strings.Contains(err.Error(), ".example.com/Gadget") || len(result.Done) != 1 {
		t.Fatalf("got %v, want the unknown kind named, and the ConfigMap applied: %+v", err, result.Done)
	}
	w.synced()
	crd := w.objects(fmt.Sprintf(widgetCRD, "gadget", "Gadget"))
	set = w.set(fmt.Sprintf(configMap, "a", "1") + fmt.Sprintf(widgetCRD, "gadget", "Gadget") +
		"{apiVersion: $NS.example.com/v1, kind: Gadget, metadata: {name: g, namespace: $NS}}")
	w.applied(set, "created CustomResourceDefinition "+crd[0].GetName(), "created Gadget g")
	w.synced()
}

func TestAdoptionFromClientSideApply(t *testing.T) {
	w := newWorld(t)
	before := strings.ReplaceAll(strings.ReplaceAll(fmt.Sprintf(configMap, "a", "1"), "$NS", w.namespace), "---", "")
	before = strings.Replace(before, `b: "fixed"`, `b: "fixed", old: "tool"`, 1)
	path := t.TempDir() + "/a.yaml"
	writeFile(t, path, before)
	w.must(shared.Kubectl(w.ctx, "apply", "-f", path))
	w.applied(w.set(fmt.Sprintf(configMap, "a", "1")), "adopted ConfigMap a")
	live, err := w.client.CoreV1().ConfigMaps(w.namespace).Get(w.ctx, "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, still := live.Data["old"]; still {
		t.Error("a field that the former tool set and Git does not is still there")
	}
	for _, e := range live.ManagedFields {
		if e.Manager == "kubectl-client-side-apply" {
			t.Error("the former tool still owns fields")
		}
	}
	if p := w.compute(w.set(fmt.Sprintf(configMap, "a", "1"))); !p.Empty() {
		t.Errorf("not empty after the adoption:\n%s", p)
	}
}

func TestAdoptionFromServerSideApply(t *testing.T) {
	w := newWorld(t)
	maps := w.client.CoreV1().ConfigMaps(w.namespace)
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"old":"tool"}}`
	w.must(maps.Patch(w.ctx, "a", types.ApplyPatchType, []byte(body), by("kustomize-controller")))
	w.applied(w.set(fmt.Sprintf(configMap, "a", "1")), "adopted ConfigMap a")
	live, err := maps.Get(w.ctx, "a", metav1.GetOptions{})
	if err != nil || live.Data["old"] != "" || len(live.ManagedFields) != 1 {
		t.Errorf("got %v, managed by %d, %v", live.Data, len(live.ManagedFields), err)
	}
}

func TestImmutableField(t *testing.T) {
	w := newWorld(t)
	job := `
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, namespace: $NS, annotations: {%s}}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: migrate, image: "example.com/migrate:%s"}]
`
	w.applied(w.set(fmt.Sprintf(job, "", "1")), "created Job migrate")
	_, result, err := w.try(w.set(fmt.Sprintf(job, "", "2")))
	if err == nil || !strings.Contains(err.Error(), "immutable") || !strings.Contains(err.Error(), plan.AnnotationForce) || !result.Errors[0].Rejected {
		t.Fatalf("got %v, want the immutable field and the way out", err)
	}
	w.applied(w.set(fmt.Sprintf(job, `slipway.dev/force: enabled`, "2")), "recreated Job migrate")
	// What is wrong with the object itself is no reason to delete it.
	_, _, err = w.try(w.set(fmt.Sprintf(job, `slipway.dev/force: enabled`, "2") + "      volumes: [{name: NOT_VALID}]\n"))
	if err == nil {
		t.Fatal("an invalid object was accepted")
	}
	w.must(w.client.BatchV1().Jobs(w.namespace).Get(w.ctx, "migrate", metav1.GetOptions{}))
}

func TestReplicasThatLeaveGitAreHandedOver(t *testing.T) {
	w := newWorld(t)
	w.applied(w.set(deployment), "created Deployment web")
	w.applied(w.set(strings.Replace(deployment, "  replicas: 3\n", "", 1)), "configured Deployment web")
	live, err := w.client.AppsV1().Deployments(w.namespace).Get(w.ctx, "web", metav1.GetOptions{})
	if err != nil || *live.Spec.Replicas != 3 {
		t.Errorf("got %d replicas, %v; want 3 as before", *live.Spec.Replicas, err)
	}
}

func TestRolloutHandsBack(t *testing.T) {
	w := newWorld(t)
	maps := w.client.CoreV1().ConfigMaps(w.namespace)
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"a":"1","old":"rollout"}}`
	w.must(maps.Patch(w.ctx, "a", types.ApplyPatchType, []byte(body), by(manifests.RolloutManager)))
	ref := w.ref("", "ConfigMap", "a")
	w.owned[ref] = plan.Entry{Version: "v1", UID: w.applier.Observe(w.ctx, []manifests.Ref{ref})[ref].UID, Bundled: true}
	w.applied(w.set(fmt.Sprintf(configMap, "a", "1")), "configured ConfigMap a")
	live, err := maps.Get(w.ctx, "a", metav1.GetOptions{})
	if err != nil || live.Data["old"] != "" {
		t.Errorf("got %v, %v", live.Data, err)
	}
}

func TestHeldPlanIsRefused(t *testing.T) {
	w := newWorld(t)
	if _, err := w.applier.Apply(w.ctx, plan.Plan{Held: "too much"}, nil); !errors.Is(err, apply.ErrHeld) {
		t.Errorf("got %v, want ErrHeld", err)
	}
	if got := w.requests.requests(); len(got) != 0 {
		t.Errorf("got requests %q", got)
	}
}

// TestHealth sets conditions by hand: there are no nodes.
func TestHealth(t *testing.T) {
	w := newWorld(t)
	w.applied(w.set(deployment), "created Deployment web")
	w.synced()
	ref := w.ref("apps", "Deployment", "web")
	w.eventually("the deployment progresses", func() bool { return w.watcher.Health(ref).State == apply.Progressing })
	w.quiet()
	deployments := w.client.AppsV1().Deployments(w.namespace)
	w.eventually("the controller manager lets us write the status", func() bool {
		live, err := deployments.Get(w.ctx, "web", metav1.GetOptions{})
		if err != nil {
			return false
		}
		live.Status.ObservedGeneration = live.Generation
		live.Status.Conditions = []appsv1.DeploymentCondition{{
			Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded",
			LastUpdateTime: metav1.NewTime(time.Now()), LastTransitionTime: metav1.NewTime(time.Now()),
		}}
		_, err = deployments.UpdateStatus(w.ctx, live, metav1.UpdateOptions{})
		return err == nil
	})
	w.notified(ref)
}
