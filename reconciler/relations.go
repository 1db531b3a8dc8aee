package reconciler

import (
	"maps"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// relations are what Applications have to do with each other, kept by name as their events tell of it: with a thousand of
// them, each status that is written must not cost a look at all the others.
type relations struct {
	mu         sync.Mutex
	depends    map[string][]string        // what an Application names in spec.dependsOn; none without any
	dependents map[string]map[string]bool // the other way round
	conflicted map[string]bool            // from whom another one keeps something
}

func newRelations() *relations {
	return &relations{depends: map[string][]string{}, dependents: map[string]map[string]bool{}, conflicted: map[string]bool{}}
}

// note takes over what an Application says now.
func (r *relations) note(app *v1alpha1.Application) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(app.Name)
	for _, d := range app.Spec.DependsOn {
		r.depends[app.Name] = append(r.depends[app.Name], d.Name)
		if r.dependents[d.Name] == nil {
			r.dependents[d.Name] = map[string]bool{}
		}
		r.dependents[d.Name][app.Name] = true
	}
	if slices.ContainsFunc(app.Status.Conditions, func(c metav1.Condition) bool {
		return c.Type == v1alpha1.ConditionReady && c.Reason == v1alpha1.ReasonOwnedByAnother
	}) {
		r.conflicted[app.Name] = true
	}
}

// forget takes an Application out that is gone.
func (r *relations) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(name)
}

func (r *relations) drop(name string) {
	for _, d := range r.depends[name] {
		delete(r.dependents[d], name)
		if len(r.dependents[d]) == 0 {
			delete(r.dependents, d)
		}
	}
	delete(r.depends, name)
	delete(r.conflicted, name)
}

// dependentsOf lists who names an Application, in order.
func (r *relations) dependentsOf(name string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.dependents[name]))
}

// edges is spec.dependsOn of all that have one.
func (r *relations) edges() map[string][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.depends)
}

// inConflict lists those from whom another one keeps something, in order: when one goes, they may take it over.
func (r *relations) inConflict() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.conflicted))
}
