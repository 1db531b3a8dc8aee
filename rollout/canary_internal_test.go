package rollout

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// All ways by which a pod refers to configuration lead to the copies, and what is not in the Bundle keeps its name.
func TestCanaryFormsUseCopies(t *testing.T) {
	var bundle []*unstructured.Unstructured
	for _, text := range []string{
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {a: b}}",
		"{apiVersion: v1, kind: Secret, metadata: {name: web}, stringData: {a: b}}",
		`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 9
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      volumes:
      - {name: a, configMap: {name: web}}
      - {name: b, secret: {secretName: web}}
      - {name: c, projected: {sources: [{configMap: {name: web}}, {secret: {name: web}}]}}
      - {name: web, configMap: {name: other}}
      initContainers:
      - {name: web, envFrom: [{configMapRef: {name: web}}, {secretRef: {name: web}}]}
      containers:
      - name: web
        env:
        - {name: A, valueFrom: {configMapKeyRef: {name: web, key: a}}}
        - {name: B, valueFrom: {secretKeyRef: {name: web, key: a}}}
`,
	} {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
			t.Fatal(err)
		}
		bundle = append(bundle, object)
	}
	canary := v1alpha1.BundleRef{Digest: string(manifests.DigestOf([]byte("canary")))}
	rollout := &v1alpha1.Rollout{Spec: v1alpha1.RolloutSpec{WorkloadRef: v1alpha1.WorkloadRef{Name: "web"}}}
	forms := canaryForms(bundle, rollout, analysis.Arrangement{Canary: &canary, CanaryReplicas: 2})
	if len(forms) != 3 {
		t.Fatalf("%d objects", len(forms))
	}
	text, err := yaml.Marshal(forms[2].Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	got, copied := string(text), "web-canary-"+manifests.Digest(canary.Digest).Short()
	if forms[0].GetName() != copied || forms[1].GetName() != copied || forms[2].GetName() != "web-canary" {
		t.Errorf("names %s, %s, %s", forms[0].GetName(), forms[1].GetName(), forms[2].GetName())
	}
	for part, times := range map[string]int{
		copied: 8, "name: other": 1, "name: web\n": 3, "replicas: 2": 1, manifests.LabelCanary + ": web": 2, "app: web": 2,
	} {
		if n := strings.Count(got, part); n != times {
			t.Errorf("%q stands %d times, want %d, in\n%s", part, n, times, got)
		}
	}
	if replicas, _, _ := unstructured.NestedFieldNoCopy(bundle[2].Object, "spec", "replicas"); replicas == int64(2) {
		t.Error("the Bundle was changed")
	}
}
