package reconciler

import (
	"context"

	"github.com/fluxcd/pkg/runtime/conditions"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// settled is where an Application came to rest: Ready, at a tip, with nothing left to do. Until another commit answers one of
// the reads differently, a pass over it would change nothing. A monorepo of a thousand Applications has most of its commits
// in one of them: the others must not even be looked at.
type settled struct {
	source     types.UID
	generation int64 // of the source: another spec may mean another repository
	reads      gitsource.Reads
}

// unsettle says that app is worked on: whatever changes from now on, it is to be looked at again.
func (r *ApplicationReconciler) unsettle(app string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.settled, app)
}

// rest notes that the pass has brought the Application to rest. A commit that came meanwhile has asked for another pass,
// since the Application was not settled then.
func (p *pass) rest(result ctrl.Result, err error) {
	if err != nil || result != (ctrl.Result{}) || !conditions.IsReady(p.app) || p.app.Spec.SourceRef.IsArtifact() || len(p.tipReads) == 0 {
		return
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	p.r.settled[p.app.Name] = settled{
		source: p.source.UID, generation: p.source.Generation, reads: p.tipReads,
	}
}

// ofSource lists the Applications that a new state of a GitSource may be about, and who waits for one that it is not about.
func (r *ApplicationReconciler) ofSource(ctx context.Context, changed client.Object) []reconcile.Request {
	src, is := changed.(*v1alpha1.GitSource)
	if !is {
		return nil
	}
	var apps v1alpha1.ApplicationList
	if err := r.Client.List(ctx, &apps, client.InNamespace(src.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	tip := r.arrivalOf(ctx, src)
	var requests []reconcile.Request
	for i := range apps.Items {
		app := &apps.Items[i]
		if app.Spec.SourceRef.Name != src.Name || app.Spec.SourceRef.IsArtifact() {
			continue
		}
		waiting, passed := r.passBy(app.Name, src, tip)
		if !passed {
			waiting = []string{app.Name}
		}
		for _, name := range waiting {
			requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: app.Namespace, Name: name}})
		}
	}
	return requests
}

// arrivalOf is the commit at which a source stands now; the zero value where it cannot be read, or the source is gone, which
// is for the passes to say.
func (r *ApplicationReconciler) arrivalOf(ctx context.Context, src *v1alpha1.GitSource) gitsource.Snapshot {
	if r.Client.Get(ctx, client.ObjectKeyFromObject(src), &v1alpha1.GitSource{}) != nil {
		return gitsource.Snapshot{}
	}
	revision, err := gitsource.ParseRevision(standing(src))
	if err != nil {
		return gitsource.Snapshot{}
	}
	repository, err := r.open(ctx, src)
	if err != nil {
		return gitsource.Snapshot{}
	}
	tip, err := repository.SnapshotOf(ctx, revision.ID)
	if err != nil {
		return gitsource.Snapshot{}
	}
	tip.Revision = revision
	return tip
}

// passBy reports whether a settled Application is what it was at tip as well, and who waited for it to get there.
func (r *ApplicationReconciler) passBy(app string, src *v1alpha1.GitSource, tip gitsource.Snapshot) (waiting []string, passed bool) {
	r.mu.Lock()
	at, is := r.settled[app]
	r.mu.Unlock()
	if !is || tip.Tree == nil || at.source != src.UID || at.generation != src.Generation {
		return nil, false
	}
	if same, err := at.reads.Hold(tip.Tree); err != nil || !same {
		return nil, false
	}
	r.mu.Lock()
	if _, is = r.settled[app]; is { // else a pass has begun meanwhile, and it may have begun with the commit before
		r.seen[app] = tip.Revision
	}
	r.mu.Unlock()
	if !is {
		return nil, false
	}
	return r.relations.dependentsOf(app), true
}
