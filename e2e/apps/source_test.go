package apps

import (
	"bytes"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// An Application at rest is passed by when a commit does not touch it, but not when its source goes or means something else.
func TestSourceChanges(t *testing.T) {
	s := tell(t, "restful", "")
	s.commit("Settings", s.set("one"))
	s.ready()
	source := func() *v1alpha1.GitSource {
		src := &v1alpha1.GitSource{}
		src.Namespace, src.Name = world.Namespace, "restful-source"
		src.Spec.URL, src.Spec.Branch, src.Spec.Interval = shared.URL, world.Branch, metav1.Duration{Duration: time.Second}
		return src
	}
	s.must(shared.Kube.Create(t.Context(), source()))
	declared := application("restful", "")
	declared.Content = bytes.Replace(declared.Content, []byte("{name: fleet}"), []byte("{name: restful-source}"), 1)
	s.commit("Follow another source", declared)
	s.eventually(func() error {
		app, err := shared.Application(t.Context(), s.name)
		if err == nil && (app.Spec.SourceRef.Name != "restful-source" || app.Status.ObservedGeneration != app.Generation) {
			err = errors.New("it follows the first source")
		}
		return err
	})
	s.ready()
	s.commit("Nothing of it", world.Write("README.md", "other words\n"))
	s.commit("Something of it", s.set("two"))
	s.has("two")
	s.ready()

	s.must(shared.Kube.Delete(t.Context(), source()))
	s.says(v1alpha1.ReasonSourceNotReady, "gitsource restful-source does not exist")
	other := source()
	other.Spec.Branch, other.Spec.Commit = "", string(s.commit("Later", s.set("three")))
	s.commit("Later still", s.set("four"))
	s.must(shared.Kube.Create(t.Context(), other))
	s.has("three")
	s.ready()
	patch := []byte(`{"spec":{"commit":null,"branch":"` + world.Branch + `"}}`)
	s.must(shared.Kube.Patch(t.Context(), other, client.RawPatch("application/merge-patch+json", patch)))
	s.has("four")
}
