package apps

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// webhook serves admission reviews of the story's namespace; answer returns a JSON patch, or why not.
func (s story) webhook(answer func(r *http.Request, object map[string]any) (patch, refusal string)) registrationv1.WebhookClientConfig {
	s.Helper()
	pki := filepath.Join(shared.Cluster.Dir(), "pki")
	certificate, err := tls.LoadX509KeyPair(filepath.Join(pki, "apiserver.crt"), filepath.Join(pki, "apiserver.key"))
	s.must(err)
	bundle, err := os.ReadFile(filepath.Join(pki, "ca.crt"))
	s.must(err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		var object map[string]any
		if json.NewDecoder(r.Body).Decode(&review) != nil || json.Unmarshal(review.Request.Object.Raw, &object) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		patch, refusal := answer(r, object)
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: refusal == ""}
		if refusal != "" {
			review.Response.Result = &metav1.Status{Message: refusal}
		}
		if patch != "" {
			kind := admissionv1.PatchTypeJSONPatch
			review.Response.Patch, review.Response.PatchType = []byte(patch), &kind
		}
		review.Request = nil
		_ = json.NewEncoder(w).Encode(review)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}} //nolint:gosec // of a test
	server.StartTLS()
	s.Cleanup(server.Close)
	return registrationv1.WebhookClientConfig{URL: &server.URL, CABundle: bundle}
}

// rules are about the ConfigMaps of the story's namespace.
func (s story) rules() ([]registrationv1.RuleWithOperations, *metav1.LabelSelector) {
	return []registrationv1.RuleWithOperations{{
		Operations: []registrationv1.OperationType{registrationv1.Create, registrationv1.Update},
		Rule:       registrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
	}}, &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": s.name}}
}

// validated has a webhook decide about ConfigMaps; call the result to take it away.
func (s story) validated(answer func(*http.Request, map[string]any) (string, string)) func() {
	s.Helper()
	rules, selector := s.rules()
	seconds, none := int32(1), registrationv1.SideEffectClassNone
	_, err := shared.clients.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(s.Context(), &registrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: s.name},
		Webhooks: []registrationv1.ValidatingWebhook{{
			Name: "guard." + s.name + ".example.com", ClientConfig: s.webhook(answer), Rules: rules, NamespaceSelector: selector,
			TimeoutSeconds: &seconds, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	s.must(err)
	return func() {
		s.must(shared.clients.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(s.Context(), s.name, metav1.DeleteOptions{}))
	}
}

// effective waits until the API server asks the webhook: a dry-run is refused.
func (s story) effective(word string) {
	s.Helper()
	s.eventually(func() error {
		_, err := shared.clients.CoreV1().ConfigMaps(s.name).Create(s.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "settings-probe"}, Data: map[string]string{"value": "bad"},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), word) {
			return fmt.Errorf("the webhook is not asked yet: %w", err)
		}
		return nil
	})
}

const calm = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: calm}\ndata: {value: ours}\n"

// What an admission webhook refuses is named with its words; the rest of the stage is applied, and when it is let in, all is.
func TestWebhookThatRefuses(t *testing.T) {
	s := tell(t, "refused", "  retryInterval: 1s\n", story{t, "refused"}.file("first.yaml", strings.Replace(calm, "calm", "first", 1)))
	s.ready()
	remove := s.validated(func(_ *http.Request, object map[string]any) (string, string) {
		if data, _ := object["data"].(map[string]any); data["value"] == "bad" {
			return "", "no bad settings in this harbour"
		}
		return "", ""
	})
	s.effective("harbour")
	s.commit("Bad setting", s.set("bad"), s.file("calm.yaml", calm))
	s.says(v1alpha1.ReasonApplyFailed, "ConfigMap refused/settings", "guard.refused.example.com", "no bad settings in this harbour")
	s.eventually(func() error { return s.is("calm", "ours") })
	remove()
	s.has("bad")
	s.ready()
}

// A webhook that does not answer delays its own Application and no other one.
func TestWebhookThatHangs(t *testing.T) {
	s := tell(t, "hanging", "  retryInterval: 1s\n", story{t, "hanging"}.file("first.yaml", strings.Replace(calm, "calm", "first", 1)))
	s.ready()
	release := make(chan struct{})
	remove := s.validated(func(r *http.Request, _ map[string]any) (string, string) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return "", ""
	})
	s.effective("guard.hanging")
	s.commit("A setting, and another application", s.set("one"),
		application("bystander", ""), story{t, "bystander"}.thing("buoy", "afloat"))
	s.says(v1alpha1.ReasonApplyFailed, "ConfigMap hanging/settings", "guard.hanging.example.com")
	bystander := story{t, "bystander"}
	bystander.owned("buoy", "bystander", "afloat")
	bystander.ready()
	close(release)
	remove()
	s.has("one")
	s.ready()
}

// What a webhook makes of an object is how it is meant to be: no drift, and no apply after the first.
func TestWebhookThatMutates(t *testing.T) {
	s := tell(t, "mutated", "", story{t, "mutated"}.file("first.yaml", strings.Replace(calm, "calm", "first", 1)))
	s.ready()
	rules, selector := s.rules()
	var asked atomic.Int64
	seconds, none := int32(5), registrationv1.SideEffectClassNone
	_, err := shared.clients.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), &registrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: s.name},
		Webhooks: []registrationv1.MutatingWebhook{{
			Name: "tide." + s.name + ".example.com", Rules: rules, NamespaceSelector: selector, TimeoutSeconds: &seconds, SideEffects: &none,
			AdmissionReviewVersions: []string{"v1"},
			ClientConfig: s.webhook(func(_ *http.Request, object map[string]any) (string, string) {
				if metadata, _ := object["metadata"].(map[string]any); metadata["name"] == "settings" {
					asked.Add(1)
				}
				return `[{"op": "add", "path": "/data/value", "value": "mutated"}]`, ""
			}),
		}},
	}, metav1.CreateOptions{})
	s.must(err)
	s.eventually(func() error {
		probe, err := shared.clients.CoreV1().ConfigMaps(s.name).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Data: map[string]string{"value": ""}},
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && probe.Data["value"] != "mutated" {
			err = fmt.Errorf("the webhook is not asked yet")
		}
		return err
	})
	s.commit("A setting", s.set("one"))
	s.has("mutated")
	s.ready()
	before := asked.Load()
	s.commit("A note", world.Write("notes/mutated.md", "hello"))
	s.commit("Another object", s.file("calm.yaml", calm))
	s.eventually(func() error { return s.is("calm", "mutated") })
	s.ready()
	if more := asked.Load() - before; more != 0 {
		t.Errorf("settings were applied %d more times", more)
	}
	if text := s.events(); strings.Contains(text, "healing") {
		t.Errorf("events:\n%s", text)
	}
}

// A definition and what it defines come in one commit.
func TestCRDAndItsObjects(t *testing.T) {
	s := tell(t, "harbour", "", story{t, "harbour"}.file("all.yaml", `apiVersion: example.com/v1
kind: Boat
metadata: {name: dinghy}
spec: {length: 3}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Boat, plural: boats}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {length: {type: integer}}}}}}
`))
	s.ready()
	out, err := shared.Cluster.Kubectl(t.Context(), "get", "boat", "-n", s.name, "dinghy", "-o", "jsonpath={.spec.length}")
	if err != nil || out != "3" {
		t.Errorf("%q, %v", out, err)
	}
}

// An object that is too large is named, and stops nothing else.
func TestObjectTooLarge(t *testing.T) {
	s := tell(t, "large", "")
	var content strings.Builder
	content.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cargo}\ndata:\n")
	for i := range 24 {
		fmt.Fprintf(&content, "  part%d: %s\n", i, strings.Repeat("x", 50_000))
	}
	s.commit("Too much", s.set("one"), s.file("cargo.yaml", content.String()))
	s.says(v1alpha1.ReasonApplyFailed, "ConfigMap large/cargo", "Too long")
	s.has("one")
	s.commit("Less", world.Remove("apps/large/cargo.yaml"))
	s.ready()
}

// A namespace that does not go away keeps what is in it from coming, and says so; when it is gone everything comes back.
func TestNamespaceStuckInDeletion(t *testing.T) {
	s := tell(t, "stuck", "  retryInterval: 1s\n")
	s.commit("A setting", s.set("one"))
	s.ready()
	patch := func(finalizers string) {
		_, err := shared.clients.CoreV1().ConfigMaps(s.name).Patch(t.Context(), "anchor", types.MergePatchType, []byte(`{"metadata":{"finalizers":`+finalizers+`}}`), metav1.PatchOptions{})
		s.must(err)
	}
	_, err := shared.clients.CoreV1().ConfigMaps(s.name).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "anchor", Finalizers: []string{"example.com/anchor"}}}, metav1.CreateOptions{})
	s.must(err)
	s.must(shared.clients.CoreV1().Namespaces().Delete(t.Context(), s.name, metav1.DeleteOptions{}))
	s.says(v1alpha1.ReasonApplyFailed, "ConfigMap stuck/settings", "because it is being terminated")
	patch("null")
	s.has("one")
	s.ready()
}

// A path that renders nothing any more prunes nothing; a commit that removes most waits for a person.
func TestEmptyAndAlmostEmpty(t *testing.T) {
	s := tell(t, "shrinking", "")
	var all, most, last []gitsource.Change
	for i := range 20 {
		name := fmt.Sprintf("crate%d", i)
		all = append(all, s.file(name+".yaml", strings.Replace(calm, "calm", name, 1)))
		if i < 18 {
			most = append(most, world.Remove("apps/shrinking/"+name+".yaml"))
		} else {
			last = append(last, world.Remove("apps/shrinking/"+name+".yaml"))
		}
	}
	s.commit("Twenty", append(all, s.file("kustomization.yaml", "resources: [more]\n"), s.file("more/kustomization.yaml", "resources: []\n"))...)
	s.commit("Twenty, plainly", world.Remove("apps/shrinking/kustomization.yaml"), world.Remove("apps/shrinking/more/kustomization.yaml"))
	s.eventually(func() error { return s.is("crate19", "ours") })
	s.ready()
	count := func() int {
		found, err := shared.clients.CoreV1().ConfigMaps(s.name).List(t.Context(), metav1.ListOptions{LabelSelector: manifests.LabelApplication})
		s.must(err)
		return len(found.Items)
	}
	s.commit("Remove all", append(append([]gitsource.Change{s.file("README.md", "nothing")}, most...), last...)...)
	s.eventually(func() error {
		if saying(t.Context(), s.name, v1alpha1.ReasonEmptyRender) == nil {
			return nil
		}
		return saying(t.Context(), s.name, v1alpha1.ReasonRenderFailed)
	})
	if got := count(); got != 20 {
		t.Fatalf("%d of 20 are left", got)
	}
	s.commit("Two come back", s.file("crate18.yaml", strings.Replace(calm, "calm", "crate18", 1)), s.file("crate19.yaml", strings.Replace(calm, "calm", "crate19", 1)))
	s.says(v1alpha1.ReasonPruneHeld, "would delete 18 of 20 objects", "kubectl annotate application shrinking")
	if got := count(); got != 20 {
		t.Fatalf("%d of 20 are left", got)
	}
	app, err := shared.Application(t.Context(), s.name)
	s.must(err)
	_, err = shared.Cluster.Kubectl(t.Context(), "annotate", "application", "-n", world.Namespace, s.name, manifests.AnnotationApprovePrune+"="+app.Status.Attempted.SetDigest)
	s.must(err)
	s.eventually(func() error {
		if got := count(); got != 2 {
			return fmt.Errorf("%d are left", got)
		}
		return nil
	})
	s.ready()
}

// The API server is killed while an Application of two hundred objects is applied: everything is there in the end, once.
func TestAPIServerRestart(t *testing.T) {
	s := story{t, "restart"}
	var files []gitsource.Change
	for i := range 200 {
		name := fmt.Sprintf("crate%d", i)
		files = append(files, s.file(name+".yaml", strings.Replace(calm, "calm", name, 1)))
	}
	s.commit("Start restart", append(files, application(s.name, ""),
		world.Write("clusters/demo/restart-namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: restart}\n"))...)
	s.eventually(func() error { // it has begun
		found, err := shared.clients.CoreV1().ConfigMaps(s.name).List(t.Context(), metav1.ListOptions{LabelSelector: manifests.LabelApplication})
		if err == nil && len(found.Items) == 0 {
			err = fmt.Errorf("nothing is applied yet")
		}
		return err
	})
	s.must(shared.Cluster.Kill("kube-apiserver"))
	s.must(shared.Cluster.StartRole(t.Context(), "kube-apiserver"))
	s.must(shared.Cluster.WaitReady(t.Context()))
	s.ready()
	app, err := shared.Application(t.Context(), s.name)
	s.must(err)
	found, err := shared.clients.CoreV1().ConfigMaps(s.name).List(t.Context(), metav1.ListOptions{LabelSelector: manifests.LabelApplication})
	s.must(err)
	if len(found.Items) != 200 || app.Status.Objects != 200 {
		t.Errorf("%d objects, %d in the Inventory", len(found.Items), app.Status.Objects)
	}
	if strings.Contains(s.events(), "pruned") || strings.Contains(s.events(), "deleted") {
		t.Errorf("events:\n%s", s.events())
	}
}
