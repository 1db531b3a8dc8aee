package reconciler

import (
	"context"
	"fmt"
	"strings"

	"github.com/fluxcd/pkg/runtime/conditions"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/expression"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// dependencies reports whether the tip's Set may be applied as far as spec.dependsOn goes. What is applied already is kept
// right whatever becomes of a dependency: it is new versions that wait, not the healing of what runs.
func (p *pass) dependencies(ctx context.Context) (bool, error) {
	if len(p.app.Spec.DependsOn) == 0 {
		return true, nil
	}
	apps, err := p.siblings(ctx)
	if err != nil {
		return false, err
	}
	if cycle := plan.Cycle(p.app.Name, edges(apps)); cycle != nil {
		p.stalled(v1alpha1.ReasonDependencyCycle, "applications depend on each other in a circle: %s; take one of them out of spec.dependsOn",
			strings.Join(append(cycle, cycle[0]), " -> "))
		return false, nil
	}
	var compiled []*expression.Expression
	for i, dependency := range p.app.Spec.DependsOn {
		var e *expression.Expression
		if dependency.ReadyExpr != "" {
			if e, err = expression.Compile(dependency.ReadyExpr, "self", "dep"); err != nil {
				p.stalled(v1alpha1.ReasonInvalidExpression, "spec.dependsOn[%d].readyExpr: %s", i, err)
				return false, nil
			}
		}
		compiled = append(compiled, e)
	}
	if applied := p.app.Status.Applied; applied != nil && applied.SetDigest == string(p.tipSet.Digest) {
		return true, nil
	}
	for i, dependency := range p.app.Spec.DependsOn {
		if why := p.awaits(ctx, dependency.Name, compiled[i], apps); why != "" {
			p.notReady(v1alpha1.ReasonDependencyNotReady, "%s is not applied yet: %s", p.tip, why)
			return false, nil
		}
	}
	return true, nil
}

// awaits says what is missing at a dependency; empty when nothing is.
func (p *pass) awaits(ctx context.Context, name string, ready *expression.Expression, apps map[string]*v1alpha1.Application) string {
	dep := apps[name]
	if dep == nil {
		return "application " + name + " does not exist (create it, or take it out of spec.dependsOn)"
	}
	if ready != nil {
		return p.awaitsExpression(dep, ready)
	}
	condition := conditions.Get(dep, v1alpha1.ConditionReady)
	switch {
	case dep.Spec.Suspend:
		return "application " + name + " is suspended"
	case !dep.DeletionTimestamp.IsZero():
		return "application " + name + " is being deleted"
	case condition == nil:
		return "application " + name + " is not ready yet"
	case !conditions.IsReady(dep):
		return "application " + name + " is not ready: " + condition.Message
	case dep.Status.ObservedGeneration != dep.Generation:
		return "application " + name + " has a newer spec than its status"
	}
	if dep.Spec.SourceRef != p.app.Spec.SourceRef {
		return ""
	}
	seen := p.r.seenBy(name)
	if seen.ID == p.tip.ID || seen.ID != "" && p.isBehind(ctx, p.tip.ID, seen.ID) {
		return ""
	}
	return "application " + name + " has not looked at this revision yet"
}

func (p *pass) awaitsExpression(dep *v1alpha1.Application, ready *expression.Expression) string {
	self, err := runtime.DefaultUnstructuredConverter.ToUnstructured(p.app)
	if err != nil {
		return err.Error()
	}
	other, err := runtime.DefaultUnstructuredConverter.ToUnstructured(dep)
	if err != nil {
		return err.Error()
	}
	holds, err := ready.Holds(map[string]any{"self": self, "dep": other})
	switch {
	case err != nil:
		return "application " + dep.Name + ": readyExpr " + err.Error()
	case !holds:
		return fmt.Sprintf("application %s: readyExpr %q does not hold", dep.Name, ready)
	}
	return ""
}

// siblings are all Applications of the namespace, from the cache and not copied: they are only looked at.
func (p *pass) siblings(ctx context.Context) (map[string]*v1alpha1.Application, error) {
	var list v1alpha1.ApplicationList
	if err := p.r.Client.List(ctx, &list, client.InNamespace(p.app.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("application %s: other applications cannot be read: %w", p.app.Name, err)
	}
	apps := make(map[string]*v1alpha1.Application, len(list.Items))
	for i := range list.Items {
		apps[list.Items[i].Name] = &list.Items[i]
	}
	return apps, nil
}

func edges(apps map[string]*v1alpha1.Application) map[string][]string {
	all := make(map[string][]string, len(apps))
	for name, app := range apps {
		for _, dependency := range app.Spec.DependsOn {
			all[name] = append(all[name], dependency.Name)
		}
	}
	return all
}

// looked notes the revision that an Application has been brought to, and wakes those who wait for that: a commit
// that changes nothing of a Ready Application is written down nowhere else.
func (p *pass) looked() {
	if !conditions.IsReady(p.app) || p.tip.ID == "" || p.r.seenBy(p.app.Name).ID == p.tip.ID {
		return
	}
	p.r.mu.Lock()
	p.r.seen[p.app.Name] = p.tip
	p.r.mu.Unlock()
	for _, name := range p.r.relations.dependentsOf(p.app.Name) {
		if name != p.app.Name { // Ready or not: its own pass may be under way
			p.r.Changed(types.NamespacedName{Namespace: p.app.Namespace, Name: name})
		}
	}
}

func (r *ApplicationReconciler) seenBy(app string) gitsource.Revision {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[app]
}

// ofDependency lists the Applications that a change of another one may be about: who depends on it, also over others,
// since a circle may be cut anywhere.
func (r *ApplicationReconciler) ofDependency(_ context.Context, changed client.Object) []reconcile.Request {
	app, is := changed.(*v1alpha1.Application)
	if !is {
		return nil
	}
	r.relations.note(app)
	var requests []reconcile.Request
	for _, name := range append(r.relations.inConflict(), plan.Dependents(app.Name, r.relations.edges())...) {
		if name != app.Name {
			requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: app.Namespace, Name: name}})
		}
	}
	return requests
}

// toldOthers lets pass what an Application may tell those who depend on it.
func toldOthers() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*v1alpha1.Application)
			after, ok2 := e.ObjectNew.(*v1alpha1.Application)
			return ok1 && ok2 && (before.Generation != after.Generation || before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() ||
				!equality.Semantic.DeepEqual(before.Status, after.Status))
		},
	}
}
