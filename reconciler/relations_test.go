package reconciler

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func TestRelations(t *testing.T) {
	r := newRelations()
	app := func(name, reason string, dependsOn ...string) *v1alpha1.Application {
		a := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for _, d := range dependsOn {
			a.Spec.DependsOn = append(a.Spec.DependsOn, v1alpha1.Dependency{Name: d})
		}
		a.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Reason: reason}}
		return a
	}
	want := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	r.note(app("web", v1alpha1.ReasonSucceeded, "db", "queue"))
	r.note(app("jobs", v1alpha1.ReasonOwnedByAnother, "db"))
	want("of db", r.dependentsOf("db"), "jobs", "web")
	want("of queue", r.dependentsOf("queue"), "web")
	want("of web", r.dependentsOf("web"))
	want("in conflict", r.inConflict(), "jobs")
	r.note(app("web", v1alpha1.ReasonSucceeded, "queue"))
	want("of db after a change", r.dependentsOf("db"), "jobs")
	r.note(app("jobs", v1alpha1.ReasonSucceeded, "db"))
	want("in conflict after it was settled", r.inConflict())
	edges := r.edges()
	if len(edges) != 2 || !slices.Equal(edges["web"], []string{"queue"}) || !slices.Equal(edges["jobs"], []string{"db"}) {
		t.Errorf("edges %v", edges)
	}
	r.forget("web")
	r.forget("jobs")
	if len(r.depends)+len(r.dependents)+len(r.conflicted) != 0 {
		t.Errorf("what is gone is kept: %+v", r)
	}
}
