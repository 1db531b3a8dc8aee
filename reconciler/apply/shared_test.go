package apply_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const scaledWeb = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: $NS}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "web:1"}, {name: side, image: "side:1"}]
`

func (w *world) web() (replicas int32, images, managers string) {
	w.Helper()
	web, err := w.client.AppsV1().Deployments(w.namespace).Get(w.ctx, "web", metav1.GetOptions{})
	w.must(nil, err)
	for _, c := range web.Spec.Template.Spec.Containers {
		images += c.Image + " "
	}
	for _, e := range web.ManagedFields {
		managers += e.Manager + " "
	}
	return *web.Spec.Replicas, images, managers
}

// Fields that are left to others are set when the object is created, and are nobody's then: whoever takes them keeps them.
func TestIgnoredFields(t *testing.T) {
	w := newWorld(t)
	w.ignore = []v1alpha1.IgnoreRule{{
		Target: v1alpha1.ObjectSelector{Group: "apps", Kind: "Deployment", Name: "web"}, Paths: []string{"/spec/replicas", "/spec/template/spec/containers/1/image"},
	}}
	w.applied(w.set(scaledWeb), "created Deployment web")
	replicas, images, managers := w.web()
	if replicas != 3 || images != "web:1 side:1 " || strings.Contains(managers, "let-go") {
		t.Fatalf("created with %d replicas and %s by %s", replicas, images, managers)
	}
	w.synced()
	w.applied(w.set(scaledWeb))
	w.quiet()
	w.must(w.client.AppsV1().Deployments(w.namespace).Patch(w.ctx, "web", types.StrategicMergePatchType,
		[]byte(`{"spec":{"replicas":7,"template":{"spec":{"containers":[{"name":"side","image":"side:9"}]}}}}`), by("scaler")))
	w.applied(w.set(scaledWeb)) // nothing
	w.applied(w.set(strings.Replace(scaledWeb, "web:1", "web:2", 1)), "configured Deployment web")
	if replicas, images, managers = w.web(); replicas != 7 || images != "web:2 side:9 " || strings.Contains(managers, "let-go") {
		t.Errorf("%d replicas and %s by %s", replicas, images, managers)
	}
	// Ours is healed, theirs is left.
	w.synced()
	w.must(w.client.AppsV1().Deployments(w.namespace).Patch(w.ctx, "web", types.StrategicMergePatchType,
		[]byte(`{"spec":{"replicas":8,"template":{"spec":{"containers":[{"name":"web","image":"evil"}]}}}}`), by("kubectl-edit")))
	w.eventually("the change is seen", func() bool {
		return len(w.compute(w.set(strings.Replace(scaledWeb, "web:1", "web:2", 1))).Actions()) > 0
	})
	w.applied(w.set(strings.Replace(scaledWeb, "web:1", "web:2", 1)), "healed Deployment web")
	if replicas, images, _ = w.web(); replicas != 8 || images != "web:2 side:9 " {
		t.Errorf("%d replicas and %s", replicas, images)
	}
}

// A rule that comes later takes nothing away: what we owned keeps its value, and one that goes makes it ours again.
func TestIgnoreLater(t *testing.T) {
	w := newWorld(t)
	w.applied(w.set(scaledWeb), "created Deployment web")
	w.synced()
	w.ignore = []v1alpha1.IgnoreRule{{Target: v1alpha1.ObjectSelector{Kind: "Deployment"}, Paths: []string{"/spec/replicas"}}}
	w.applied(w.set(scaledWeb), "configured Deployment web")
	if replicas, _, managers := w.web(); replicas != 3 || strings.Contains(managers, "let-go") {
		t.Errorf("%d replicas, managers %s", replicas, managers)
	}
	w.synced()
	w.must(w.client.AppsV1().Deployments(w.namespace).Patch(w.ctx, "web", types.MergePatchType, []byte(`{"spec":{"replicas":7}}`), by("scaler")))
	w.applied(w.set(scaledWeb))
	if replicas, _, _ := w.web(); replicas != 7 {
		t.Errorf("%d replicas", replicas)
	}
	w.ignore = nil
	w.applied(w.set(scaledWeb), "configured Deployment web")
	if replicas, _, _ := w.web(); replicas != 3 {
		t.Errorf("%d replicas", replicas)
	}
}
