package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/appset"
)

// made reports whether an Application is one of the set: by its owner reference, or where it has none by its label. One
// that stands in Git itself is not, so that set and Git never write it in turns.
func (p *setPass) made(app *v1alpha1.Application) bool {
	if app.Labels[manifests.LabelApplication] != "" {
		return false
	}
	if owner := metav1.GetControllerOf(app); owner != nil {
		return owner.UID == p.set.UID
	}
	return app.Labels[manifests.LabelApplicationSet] == p.set.Name
}

// applyAll applies what differs. One that is refused does not keep the others; again says that trying once more may help.
func (p *setPass) applyAll(ctx context.Context, want appset.Expansion) (refused []appset.Failure, again bool) {
	var created, configured []string
	for _, app := range want.Applications {
		verb, err := p.apply(ctx, app)
		switch {
		case err != nil:
			refused = append(refused, appset.Failure{Origin: app.Origin, Name: app.Name, Err: err})
			again = again || !settledRefusal(err)
		case verb == "created":
			created = append(created, app.Name)
		case verb == "configured":
			configured = append(configured, app.Name)
		}
	}
	p.tell("Created", "created", created)
	p.tell("Configured", "configured", configured)
	return refused, again
}

// settledRefusal is one that lasts until the set, its source or the Application in its way changes.
func settledRefusal(err error) bool {
	return errors.As(err, new(foreignError)) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}

// foreignError is of an Application that somebody else made.
type foreignError struct{ error }

// apply brings one Application to what its entry asks for, and says in the past tense what was done; empty for nothing.
func (p *setPass) apply(ctx context.Context, app appset.Application) (string, error) {
	object, err := app.Object(p.set)
	if err != nil {
		return "", err
	}
	live := p.apps[app.Name]
	if live == nil {
		// The watch may lag behind: whether it is really not there, or somebody else's, is worth a look.
		var found v1alpha1.Application
		err := p.r.apps.Secrets.Get(ctx, types.NamespacedName{Namespace: p.set.Namespace, Name: app.Name}, &found)
		if client.IgnoreNotFound(err) != nil {
			return "", fmt.Errorf("application %s cannot be read: %w", app.Name, err)
		}
		if err == nil {
			live = &found
		}
	}
	if live != nil && !p.made(live) {
		return "", p.foreign(live)
	}
	if live != nil && !live.DeletionTimestamp.IsZero() {
		return "", nil // it is made again when it is gone
	}
	if app.Preview == nil {
		return p.applyObject(ctx, live, object)
	}
	source, err := p.sourceTaken(ctx, app.Name, live)
	if err != nil {
		return "", err
	}
	verb, err := p.applyObject(ctx, live, object)
	if err != nil {
		return "", err
	}
	var owner metav1.Object = object // as the API server answered
	if verb == "" {
		owner = live
	}
	moved, err := p.applySource(ctx, app, owner, source)
	if verb == "" && moved {
		verb = "configured"
	}
	return verb, err
}

// applyObject applies an Application that differs from live, which is nil where there is none.
func (p *setPass) applyObject(ctx context.Context, live *v1alpha1.Application, object *unstructured.Unstructured) (string, error) {
	verb := "created"
	if live != nil {
		holds, err := appset.Holds(live, object)
		if err != nil || holds {
			return "", err
		}
		verb = "configured"
	}
	if err := p.r.apps.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(setManager), client.ForceOwnership); err != nil {
		return "", fmt.Errorf("application %s is refused: %w", object.GetName(), err)
	}
	return verb, nil
}

// foreign says whose an Application is, and how it comes to the set.
func (p *setPass) foreign(app *v1alpha1.Application) error {
	if root := app.Labels[manifests.LabelApplication]; root != "" {
		return foreignError{fmt.Errorf("application %s exists: it comes from Git, by Application %s; remove it there or tell it apart in template.metadata.name", app.Name, root)}
	}
	if owner := metav1.GetControllerOf(app); owner != nil {
		return foreignError{fmt.Errorf("application %s exists: it belongs to %s %s; tell it apart in template.metadata.name", app.Name, owner.Kind, owner.Name)}
	}
	whose := "somebody made it by hand"
	if other := app.Labels[manifests.LabelApplicationSet]; other != "" {
		whose = "it belongs to ApplicationSet " + other
	}
	return foreignError{fmt.Errorf("application %s exists: %s; tell it apart in template.metadata.name, or hand it over: kubectl label application %s --overwrite %s=%s",
		app.Name, whose, app.Name, manifests.LabelApplicationSet, p.set.Name)}
}

// remove deletes Applications, whose own finalizers do the rest, or leaves them as nobody's.
func (p *setPass) remove(ctx context.Context, names []string) error {
	verb, do := "removed", p.delete
	if p.set.Spec.Preserve {
		verb, do = "left in place", p.release
	}
	var done []string
	var failed error
	for _, name := range names {
		app := p.apps[name]
		if !app.DeletionTimestamp.IsZero() {
			continue
		}
		if err := do(ctx, app); err != nil {
			failed = errors.Join(failed, fmt.Errorf("applicationset %s: application %s: %w", p.set.Name, name, err))
			continue
		}
		done = append(done, name)
	}
	p.tell("Removed", verb, done)
	return failed
}

// delete deletes the very Application that was looked at.
func (p *setPass) delete(ctx context.Context, app *v1alpha1.Application) error {
	uid := app.UID
	return client.IgnoreNotFound(p.r.apps.Client.Delete(ctx, app, client.Preconditions{UID: &uid}))
}

// release takes from an Application what makes it one of the set.
func (p *setPass) release(ctx context.Context, app *v1alpha1.Application) error {
	before := app.DeepCopy()
	app = app.DeepCopy()
	delete(app.Labels, manifests.LabelApplicationSet)
	delete(app.Annotations, manifests.AnnotationTemplated)
	app.OwnerReferences = slices.DeleteFunc(app.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == p.set.UID })
	// The list of owners is sent as a whole, so it must be the one that was read.
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	return client.IgnoreNotFound(p.r.apps.Client.Patch(ctx, app, patch))
}

// finalize removes or releases all that the set made, then lets it go. Who deletes a set means its Applications, too, so
// that no guard asks once more.
func (p *setPass) finalize(ctx context.Context) error {
	if !controllerutil.ContainsFinalizer(p.set, SetFinalizer) {
		return nil
	}
	if controllerutil.ContainsFinalizer(p.set, metav1.FinalizerOrphanDependents) {
		p.set.Spec.Preserve = true // kubectl delete --cascade=orphan; it is not written
	}
	if err := p.remove(ctx, p.owned); err != nil {
		return err
	}
	if !p.set.Spec.Preserve && len(p.owned) > 0 {
		p.set.Status.Removing = len(p.owned)
		p.notReady(v1alpha1.ReasonDeleting, "%d applications are on their way out", len(p.owned))
		return p.writeStatus(ctx)
	}
	patch := client.MergeFromWithOptions(p.set.DeepCopy(), client.MergeFromWithOptimisticLock{})
	controllerutil.RemoveFinalizer(p.set, SetFinalizer)
	if err := p.r.apps.Client.Patch(ctx, p.set, patch); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("applicationset %s: finalizer cannot be removed: %w", p.set.Name, err))
	}
	return nil
}

// tell makes one event of what was done to many.
func (p *setPass) tell(reason, verb string, names []string) {
	const named = 5
	if len(names) == 0 {
		return
	}
	more := ""
	if len(names) > named {
		more = fmt.Sprintf(" and %d more", len(names)-named)
	}
	p.event(corev1.EventTypeNormal, reason, "%s %s%s", verb, strings.Join(names[:min(named, len(names))], ", "), more)
}

// listed are the first failures as the status has them.
func listed(failures []appset.Failure) []v1alpha1.ApplicationSetFailure {
	var out []v1alpha1.ApplicationSetFailure
	for _, failure := range failures[:min(failuresListed, len(failures))] {
		out = append(out, v1alpha1.ApplicationSetFailure{Origin: failure.Origin, Name: failure.Name, Message: failure.Err.Error()})
	}
	return out
}
