package apply_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/apply"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWipedLeavesOthersAlone: what others wrote cannot be told from what we wrote once managedFields are gone. None of
// it may disappear with the heal.
func TestWipedLeavesOthersAlone(t *testing.T) {
	w := newWorld(t)
	set := w.set(fmt.Sprintf(configMap, "a", "1"))
	w.apply(set)
	w.synced()
	w.quiet()
	w.patchConfigMap("someone", `{"metadata":{"annotations":{"someone.example/note":"kept"}},"data":{"theirs":"kept"}}`)
	w.patchConfigMap("someone", `{"metadata":{"managedFields":[{}]}}`)
	w.notified(w.ref("", "ConfigMap", "a"))
	w.eventually("the plan sees it", func() bool { p := w.compute(set); return !p.Empty() })
	w.applied(set, "healed ConfigMap a")
	live, err := w.client.CoreV1().ConfigMaps(w.namespace).Get(w.ctx, "a", metav1.GetOptions{})
	if err != nil || live.Annotations["someone.example/note"] != "kept" || live.Data["theirs"] != "kept" || live.Data["a"] != "1" {
		t.Errorf("after the heal: %v %v, %v", live.Annotations, live.Data, err)
	}
	if p := w.compute(set); !p.Empty() {
		t.Errorf("not empty after the heal:\n%s", p)
	}
}

// TestDrift lets others do all that counts as drift, and holds that each is
// noticed without a request, healed with one PATCH, and leaves no trace.
func TestDrift(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(w *world)
		verb string // default: healed
	}{
		"value changed": {do: func(w *world) { w.patchConfigMap("kubectl-edit", `{"data":{"a":"theirs"}}`) }},
		"value removed": {do: func(w *world) { w.patchConfigMap("kubectl-edit", `{"data":{"a":null}}`) }},
		"changed and put back": {do: func(w *world) {
			w.patchConfigMap("kubectl-edit", `{"data":{"a":"theirs"}}`)
			w.patchConfigMap("kubectl-edit", `{"data":{"a":"1"}}`)
		}},
		"forced apply by another manager": {do: func(w *world) {
			force := true
			w.must(w.client.CoreV1().ConfigMaps(w.namespace).Patch(w.ctx, "a", types.ApplyPatchType,
				[]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"a":"theirs"}}`),
				metav1.PatchOptions{FieldManager: "argo", Force: &force}))
		}},
		"managedFields wiped": {do: func(w *world) { w.patchConfigMap("someone", `{"metadata":{"managedFields":[{}]}}`) }},
		"label removed": {do: func(w *world) {
			w.patchConfigMap("kubectl-label", `{"metadata":{"labels":{"slipway.dev/application":null}}}`)
		}},
		"deleted": {verb: "created", do: func(w *world) {
			w.must(nil, w.client.CoreV1().ConfigMaps(w.namespace).Delete(w.ctx, "a", metav1.DeleteOptions{}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			set := w.set(fmt.Sprintf(configMap, "a", "1"))
			w.apply(set)
			w.synced()
			w.quiet()
			test.do(w)
			w.notified(w.ref("", "ConfigMap", "a"))
			p := w.compute(set)
			w.eventually("the plan sees it", func() bool { p = w.compute(set); return !p.Empty() })
			if action := p.Actions()[0]; !action.Drift {
				t.Errorf("not told as drift: %+v", action)
			}
			if test.verb == "" {
				test.verb = "healed"
			}
			w.applied(set, test.verb+" ConfigMap a")
			live, err := w.client.CoreV1().ConfigMaps(w.namespace).Get(w.ctx, "a", metav1.GetOptions{})
			if err != nil || live.Data["a"] != "1" {
				t.Errorf("after the heal: %v, %v", live.Data, err)
			}
			if p := w.compute(set); !p.Empty() {
				t.Errorf("not empty after the heal:\n%s", p)
			}
			// Removals work still, whoever owned the field in between.
			w.applied(w.set("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: $NS}, data: {b: fixed}}"), "configured ConfigMap a")
			live, err = w.client.CoreV1().ConfigMaps(w.namespace).Get(w.ctx, "a", metav1.GetOptions{})
			if _, still := live.Data["a"]; still || err != nil {
				t.Errorf("a field that left Git is still there: %v, %v", live.Data, err)
			}
		})
	}
}

func (w *world) patchConfigMap(manager, patch string) {
	w.Helper()
	w.must(w.client.CoreV1().ConfigMaps(w.namespace).Patch(w.ctx, "a", types.MergePatchType, []byte(patch), by(manager)))
}

// TestWhatOthersMayDo edits what is not ours; none of it may wake us or cost a request.
func TestWhatOthersMayDo(t *testing.T) {
	w := newWorld(t)
	noReplicas := strings.Replace(deployment, "  replicas: 3\n", "", 1)
	set := w.set(fmt.Sprintf(configMap, "a", "1") + noReplicas)
	w.apply(set)
	w.synced()
	deployments := w.client.AppsV1().Deployments(w.namespace)
	w.eventually("the controllers are done", func() bool {
		live, err := deployments.Get(w.ctx, "web", metav1.GetOptions{})
		return err == nil && live.Status.ObservedGeneration == live.Generation && live.Status.Replicas == 1
	})
	w.eventually("the watch is", func() bool {
		return w.watcher.Health(w.ref("apps", "Deployment", "web")).Message != "was applied just now"
	})
	w.quiet()
	w.patchConfigMap("kubectl-annotate", `{"metadata":{"annotations":{"note":"mine"}}}`)
	w.patchConfigMap("kubectl-edit", `{"data":{"extra":"mine"}}`)
	w.must(deployments.Patch(w.ctx, "web", types.MergePatchType, []byte(`{"metadata":{"annotations":{"note":"mine"}}}`), by("kubectl-annotate")))
	w.must(deployments.Patch(w.ctx, "web", types.MergePatchType, []byte(`{"spec":{"replicas":4}}`), by("autoscaler"), "scale"))
	w.must(deployments.Patch(w.ctx, "web", types.MergePatchType, []byte(`{"status":{"readyReplicas":0,"collisionCount":1}}`), by("someone"), "status"))
	// An edit that counts, behind them in the same watches, shows that they were seen.
	w.must(deployments.Patch(w.ctx, "web", types.MergePatchType, []byte(`{"metadata":{"labels":{"slipway.dev/application":null}}}`), by("someone")))
	w.patchConfigMap("someone", `{"data":{"a":"theirs"}}`)
	seen := map[string]bool{}
	deadline := time.After(20 * time.Second)
	for len(seen) < 2 {
		select {
		case ref := <-w.notes:
			if seen[ref.Name] {
				t.Errorf("%s: notified twice", ref)
			}
			seen[ref.Name] = true
		case <-deadline:
			t.Fatalf("saw only %v", seen)
		}
	}
	if got := w.requests.requests(); len(got) != 1 || !strings.HasPrefix(got[0], "GET") {
		t.Errorf("got requests %q, want the one GET for the object that left the watch", got)
	}
}

func TestErrorsAreUnknownNotAbsent(t *testing.T) {
	w := newWorld(t)
	set := w.set(fmt.Sprintf(configMap, "a", "1"))
	w.apply(set)
	ref := w.ref("", "ConfigMap", "a")
	other := w.ref("", "ConfigMap", "other")
	w.synced()
	for _, code := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusForbidden, http.StatusServiceUnavailable} {
		w.requests.failWith(func(r *http.Request) *http.Response {
			return &http.Response{
				StatusCode: code, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(strings.NewReader(`{"kind":"Status","apiVersion":"v1","status":"Failure","code":` + fmt.Sprint(code) + `}`)),
			}
		})
		seen := w.applier.Observe(w.ctx, append(w.owned.Refs(), other))
		if seen[ref].State != plan.Present {
			t.Errorf("%d: the watched object is %s, want present", code, seen[ref].State)
		}
		if seen[other].State != plan.Unknown || seen[other].Why == "" {
			t.Errorf("%d: got %s (%q), want unknown with the reason", code, seen[other].State, seen[other].Why)
		}
	}
	w.requests.failWith(nil)
	if seen := w.applier.Observe(w.ctx, w.owned.Refs()); seen[ref].State != plan.Present {
		t.Errorf("got %s", seen[ref].State)
	}
}

func TestUntrackEndsWatches(t *testing.T) {
	w := newWorld(t)
	w.apply(w.set(fmt.Sprintf(configMap, "a", "1")))
	w.synced()
	w.watcher.Track(w.app, nil)
	if live := w.watcher.Live(w.ref("", "ConfigMap", "a")); live.State != plan.Unknown {
		t.Errorf("got %s from a watch that nobody needs", live.State)
	}
	w.quiet()
	if seen := w.applier.Observe(w.ctx, w.owned.Refs()); seen[w.ref("", "ConfigMap", "a")].State != plan.Present {
		t.Error("not seen without a watch")
	}
	if got := len(w.requests.requests()); got != 1 {
		t.Errorf("got %d requests, want one GET", got)
	}
}

func TestDryRunTellsWhoDidIt(t *testing.T) {
	w := newWorld(t)
	set := w.set(deployment)
	w.apply(set)
	deployments := w.client.AppsV1().Deployments(w.namespace)
	w.must(deployments.Patch(w.ctx, "web", types.MergePatchType, []byte(`{"spec":{"replicas":5}}`), by("kubectl-scale")))
	w.must(deployments.Patch(w.ctx, "web", types.StrategicMergePatchType,
		[]byte(`{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"example.com/web:hot","env":[{"name":"A","value":"9"}]}]}}}}`), by("kubectl-edit")))
	diff, err := w.applier.DryRun(w.ctx, set.Objects[0])
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range diff.Fields {
		got = append(got, f.Drift())
	}
	want := []string{
		`spec.replicas: 3 -> 5 (kubectl-scale)`,
		`spec.template.spec.containers[web].env[A].value: "1" -> "9" (kubectl-edit)`,
		`spec.template.spec.containers[web].image: "example.com/web:1" -> "example.com/web:hot" (kubectl-edit)`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDryRunOfTakenButEqualField(t *testing.T) {
	w := newWorld(t)
	set := w.set(fmt.Sprintf(configMap, "a", "1"))
	w.apply(set)
	w.patchConfigMap("kubectl-edit", `{"data":{"a":"theirs"}}`)
	w.patchConfigMap("kubectl-edit", `{"data":{"a":"1"}}`)
	diff, err := w.applier.DryRun(w.ctx, set.Objects[0])
	if err != nil || len(diff.Fields) != 1 || diff.Fields[0].Drift() != `data.a: "1", taken over (kubectl-edit)` {
		t.Errorf("got %v, %v", diff.Fields, err)
	}
}

func TestDryRunMasksSecrets(t *testing.T) {
	w := newWorld(t)
	secret := "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: $NS}, stringData: {password: %s}}"
	w.apply(w.set(fmt.Sprintf(secret, "hunter2")))
	diff, err := w.applier.DryRun(w.ctx, w.set(fmt.Sprintf(secret, "hunter3")).Objects[0])
	if err != nil || len(diff.Fields) == 0 {
		t.Fatalf("got %v, %v", diff, err)
	}
	text := fmt.Sprintf("%+v", diff)
	for _, value := range []string{"hunter", "aHVudGVy"} {
		if strings.Contains(text, value) {
			t.Errorf("a secret value is shown: %s", text)
		}
	}
	if created, err := w.applier.DryRun(w.ctx, w.objects(fmt.Sprintf(configMap, "new", "1"))[0]); err != nil || !created.Create {
		t.Errorf("got %+v, %v, want Create", created, err)
	}
	bad := w.objects("{apiVersion: v1, kind: Service, metadata: {name: bad, namespace: $NS}, spec: {ports: [{port: 99999}]}}")[0]
	var refused *apply.ObjectError
	if _, err := w.applier.DryRun(w.ctx, bad); err == nil || !errors.As(err, &refused) || !refused.Rejected {
		t.Errorf("got %v, want a rejection", err)
	}
}

// TestDryRunHides: what is hidden is hidden before a value is shortened, and a difference that is not to be seen is one all the same.
func TestDryRunHides(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("x", 190)
	w.apply(w.set(fmt.Sprintf(configMap, "a", long+"hunter2hunter2")))
	w.patchConfigMap("kubectl", `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"an older secret","other":"1"}}}`)
	want := w.set(fmt.Sprintf(configMap, "a", long+"hunter3hunter3")).Objects[0].DeepCopy()
	want.SetAnnotations(map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "a new one"})
	hide := strings.NewReplacer("hunter2", "", "hunter3", "").Replace
	diff, err := w.applier.DryRunHiding(w.ctx, want, hide)
	if err != nil || len(diff.Fields) != 2 {
		t.Fatalf("got %+v, %v", diff, err)
	}
	if got, want := diff.Fields[0].String(), `data.a: "`+long+`" -> another value`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := diff.Fields[1]; got.Live != "(masked)" || got.Want != "another value" {
		t.Errorf("got %s", got)
	}
}

// TestCRDThatGoesAway takes a watched kind away: what was cached of it must not be believed.
func TestCRDThatGoesAway(t *testing.T) {
	w := newWorld(t)
	crd := fmt.Sprintf(widgetCRD, "widget", "Widget")
	set := w.set(fmt.Sprintf(configMap, "a", "1") + crd + "{apiVersion: $NS.example.com/v1, kind: Widget, metadata: {name: first, namespace: $NS}}")
	w.apply(set)
	w.synced()
	w.quiet()
	name := "widgets." + w.namespace + ".example.com"
	w.must(shared.Kubectl(w.ctx, "delete", "crd", name, "--wait=true"))
	widget := manifests.Ref{Group: w.namespace + ".example.com", Kind: "Widget", Namespace: w.namespace, Name: "first"}
	w.notified(widget)
	w.eventually("both are created again", func() bool {
		p, err := plan.Compute(plan.In{Application: w.app.Name, Want: set, Seen: w.observe(set), Owned: w.owned})
		return err == nil && len(p.Actions()) == 2
	})
	if live := w.watcher.Live(w.ref("", "ConfigMap", "a")); live.State != plan.Present {
		t.Errorf("another kind suffered: %s", live.State)
	}
	w.applied(set, "created CustomResourceDefinition "+name, "created Widget first")
}
