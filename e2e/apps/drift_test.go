package apps

import (
	"context"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Somebody who undoes each healing is named, and the object is left alone for a while; others of the Application are not.
func TestContestedField(t *testing.T) {
	s := tell(t, "contest", "")
	s.commit("Start", s.set("ours"), s.file("calm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: calm}\ndata: {value: ours}\n"))
	s.has("ours")
	s.ready()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // a controller that wants another value
		defer close(done)
		watch, err := shared.clients.CoreV1().ConfigMaps(s.name).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=settings"})
		if err != nil {
			return
		}
		defer watch.Stop()
		for range watch.ResultChan() {
			_, _ = shared.clients.CoreV1().ConfigMaps(s.name).Patch(ctx, "settings", types.MergePatchType,
				[]byte(`{"data":{"value":"theirs"}}`), metav1.PatchOptions{FieldManager: "stubborn-controller"})
		}
	}()
	s.eventually(func() error {
		return shared.Condition(t.Context(), s.name, v1alpha1.ConditionDrifted, v1alpha1.ReasonContested)
	})
	stop()
	<-done
	app, err := shared.Application(t.Context(), s.name)
	s.must(err)
	drifted := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionDrifted)
	if !strings.Contains(drifted.Message, `ConfigMap contest/settings: data.value: "ours" -> "theirs" (stubborn-controller)`) {
		t.Errorf("the condition says %q", drifted.Message)
	}
	if text := s.events(); !strings.Contains(text, "healing was undone 3 times in a row") || !strings.Contains(text, "stubborn-controller") {
		t.Errorf("events:\n%s", text)
	}
	s.has("theirs")
	_, err = shared.clients.CoreV1().ConfigMaps(s.name).Patch(t.Context(), "calm", types.MergePatchType, []byte(`{"data":{"value":"spoiled"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	s.must(err)
	s.eventually(func() error { return s.is("calm", "ours") })
	// A new version is applied at once.
	s.commit("Another value", s.set("new"))
	s.has("new")
}

// What is left to others by spec.ignore is not contested.
func TestIgnore(t *testing.T) {
	s := tell(t, "ignore", "  ignore: [{target: {kind: ConfigMap, name: settings}, paths: [/data/value]}]\n")
	s.commit("Start", s.set("first"))
	s.has("first")
	s.ready()
	s.spoil()
	s.commit("Another object", s.file("calm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: calm}\ndata: {value: ours}\n"), s.set("second"))
	s.eventually(func() error { return s.is("calm", "ours") })
	s.ready()
	if got := s.setting(); got != "spoiled" {
		t.Errorf("the setting is %q", got)
	}
}

// An immutable field: an error that names it and the way out, and where that is taken the object is made anew.
func TestForce(t *testing.T) {
	s := tell(t, "force", "")
	settings := func(value, annotations string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, annotations: {" + annotations + "}}\nimmutable: true\ndata: {value: " + value + "}\n"
	}
	s.commit("Start", s.file("settings.yaml", settings("one", "a: b")))
	s.has("one")
	s.ready()
	s.commit("Change it", s.file("settings.yaml", settings("two", "a: b")))
	s.says(v1alpha1.ReasonApplyFailed, "ConfigMap force/settings", "data", "immutable", "slipway.dev/force: enabled")
	if got := s.setting(); got != "one" {
		t.Errorf("the setting is %q", got)
	}
	s.commit("Force it", s.file("settings.yaml", settings("two", "slipway.dev/force: enabled")))
	s.has("two")
	s.ready()
}
