package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/fluxcd/pkg/runtime/conditions"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/appset"
)

// SetFinalizer keeps an ApplicationSet until its Applications are gone, or are nobody's.
const SetFinalizer = v1alpha1.Group + "/applicationset"

// setManager owns the fields that sets write, apart from those that an Application writes into objects.
const setManager = manifests.FieldManager + "-applicationset"

// untilDefined is how long the loop waits for the definition of its kind, which earlier versions had not: as long as it takes. The
// manager would end the agent after two minutes otherwise.
const untilDefined = 10 * 365 * 24 * time.Hour

// failuresListed of a set; all are counted.
const failuresListed = 10

// ApplicationSetReconciler keeps the Applications of ApplicationSets.
type ApplicationSetReconciler struct {
	apps  *ApplicationReconciler // whose client, sources, clock and events it shares
	pulls PullRequests

	mu      sync.Mutex
	written map[types.NamespacedName]uint64 // resourceVersion of the last status write
	answers map[types.NamespacedName]answer // of the hosts that sets follow pull requests of
}

// NewApplicationSet returns the loop over ApplicationSets. It reads sources as applications does, and pull requests by pulls.
func NewApplicationSet(applications *ApplicationReconciler, pulls PullRequests) *ApplicationSetReconciler {
	return &ApplicationSetReconciler{
		apps: applications, pulls: pulls, written: map[types.NamespacedName]uint64{}, answers: map[types.NamespacedName]answer{},
	}
}

// setsAtOnce leaves room for others while some wait for their hosts.
const setsAtOnce = 8

// SetupWithManager registers the loop.
func (r *ApplicationSetReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.ApplicationSet{}, builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}),
		)).
		Watches(&v1alpha1.Application{}, r.ofApplication()).
		Watches(&v1alpha1.GitSource{}, r.ofSource(v1alpha1.KindGitSource), builder.WithPredicates(revisionChanged())).
		Watches(&v1alpha1.OCISource{}, r.ofSource(v1alpha1.KindOCISource), builder.WithPredicates(artifactChanged())).
		Watches(&v1alpha1.ChartSource{}, r.ofSource(v1alpha1.KindChartSource), builder.WithPredicates(artifactChanged())).
		WithOptions(controller.Options{MaxConcurrentReconciles: setsAtOnce, CacheSyncTimeout: untilDefined}).
		Complete(r)
}

// setPass is one reconciliation of one ApplicationSet.
type setPass struct {
	r      *ApplicationSetReconciler
	set    *v1alpha1.ApplicationSet
	before *v1alpha1.ApplicationSet
	apps   map[string]*v1alpha1.Application // of the namespace, by name
	owned  []string                         // of these, the names of those that the set made

	entered int // entries of all generators

	source v1alpha1.GitSource // that previews are made after
	later  time.Duration      // come back then; 0 where the watches tell
}

// Reconcile brings the Applications of one set to what its entries ask for.
func (r *ApplicationSetReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var set v1alpha1.ApplicationSet
	if err := r.apps.Client.Get(ctx, req.NamespacedName, &set); err != nil {
		if apierrors.IsNotFound(err) {
			r.mu.Lock()
			delete(r.written, req.NamespacedName)
			delete(r.answers, req.NamespacedName)
			r.mu.Unlock()
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	defer func(start time.Time) {
		r.apps.Metrics.RecordDuration(ctx, &set, start)
		r.apps.Metrics.RecordReadiness(ctx, &set)
	}(r.apps.Now())
	if r.behind(&set) {
		return ctrl.Result{RequeueAfter: 20 * time.Millisecond}, nil
	}
	p := &setPass{r: r, set: &set, before: set.DeepCopy()}
	if err := p.look(ctx); err != nil {
		return ctrl.Result{}, err
	}
	if !set.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, p.finalize(ctx)
	}
	if controllerutil.AddFinalizer(&set, SetFinalizer) {
		patch := fmt.Appendf(nil, `{"metadata":{"finalizers":["%s"],"resourceVersion":%q}}`, SetFinalizer, set.ResourceVersion)
		if err := r.apps.Client.Patch(ctx, &set, client.RawPatch(types.MergePatchType, patch)); err != nil {
			return ctrl.Result{}, fmt.Errorf("applicationset %s: finalizer cannot be set: %w", set.Name, err)
		}
		p.before = set.DeepCopy()
	}
	result, err := p.run(ctx)
	return result, errors.Join(err, p.writeStatus(ctx))
}

// behind reports whether the cache has not yet caught up with our own last status write.
func (r *ApplicationSetReconciler) behind(set *v1alpha1.ApplicationSet) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen, err := strconv.ParseUint(set.ResourceVersion, 10, 64)
	return err == nil && seen < r.written[client.ObjectKeyFromObject(set)]
}

// look lists the Applications of the namespace, without a request.
func (p *setPass) look(ctx context.Context) error {
	var list v1alpha1.ApplicationList
	if err := p.r.apps.Client.List(ctx, &list, client.InNamespace(p.set.Namespace)); err != nil {
		return fmt.Errorf("applicationset %s: %w", p.set.Name, err)
	}
	p.apps = map[string]*v1alpha1.Application{}
	for i := range list.Items {
		app := &list.Items[i]
		p.apps[app.Name] = app
		if p.made(app) {
			p.owned = append(p.owned, app.Name)
		}
	}
	return nil
}

// run goes from the entries to the Applications. What is broken stays as it is and is told; the rest goes on.
func (p *setPass) run(ctx context.Context) (ctrl.Result, error) {
	entries, empty, err := p.entries(ctx)
	if err != nil {
		return p.unreadable(err)
	}
	p.entered = len(entries)
	want := appset.Expand(p.set.Spec.Template, entries)
	p.count(want)
	removal := p.removal(want, empty)
	status := &p.set.Status
	if status.ApprovedPrune != removal.State {
		// Before anything is removed: what is left of it then needs no other approval, whatever is killed from here on.
		status.ApprovedPrune = removal.State
		if err := p.writeStatus(ctx); err != nil {
			return ctrl.Result{}, err
		}
	}
	refused, again := p.applyAll(ctx, want)
	failures := slices.Concat(want.Failures, refused)
	status.Failed, status.Failures = len(failures), listed(failures)
	err = p.remove(ctx, removal.Now)
	p.conclude(removal, failures)
	result := ctrl.Result{RequeueAfter: p.later}
	if again {
		result = sooner(result, ctrl.Result{RequeueAfter: 5 * time.Second})
	}
	return result, err
}

// unreadable leaves everything as it is.
func (p *setPass) unreadable(err error) (ctrl.Result, error) {
	var passing passingError
	if errors.As(err, &passing) {
		p.notReady(passing.reason, "%s; all applications stay as they are", err)
		return ctrl.Result{RequeueAfter: passing.again}, nil
	}
	p.notReady(v1alpha1.ReasonEntriesFailed, "%s; all applications stay as they are", err)
	conditions.MarkStalled(p.set, v1alpha1.ReasonEntriesFailed, "%s", err)
	return ctrl.Result{}, nil
}

func (p *setPass) count(want appset.Expansion) {
	status := &p.set.Status
	status.Applications, status.Ready = len(want.Applications), 0
	for _, name := range p.owned {
		if app := p.apps[name]; conditions.IsReady(app) && app.Status.ObservedGeneration == app.Generation {
			status.Ready++
		}
	}
}

func (p *setPass) removal(want appset.Expansion, empty string) appset.Removal {
	in := appset.In{
		Set: p.set.Name, Want: want, Empty: empty,
		Approved: p.set.Annotations[manifests.AnnotationApprovePrune], Underway: p.set.Status.ApprovedPrune,
	}
	for _, name := range p.owned {
		app := p.apps[name]
		in.Owned = append(in.Owned, appset.Owned{Name: name, UID: string(app.UID), Disposable: app.Labels[manifests.LabelPullRequest] != ""})
	}
	removal := appset.Remove(in)
	p.set.Status.Removing = len(removal.Names)
	return removal
}

// conclude sets the condition Ready. Held removals are told before failures: they wait for a person.
func (p *setPass) conclude(removal appset.Removal, failures []appset.Failure) {
	switch {
	case removal.Held != "":
		if conditions.GetReason(p.set, v1alpha1.ConditionReady) != v1alpha1.ReasonPruneHeld {
			p.event(corev1.EventTypeWarning, v1alpha1.ReasonPruneHeld, "%s", removal.Held)
		}
		p.notReady(v1alpha1.ReasonPruneHeld, "%s", removal.Held)
	case len(failures) > 0:
		p.notReady(v1alpha1.ReasonEntriesFailed, "%d of %d entries failed; %s: %s", len(failures), p.entered, failures[0].Origin, failures[0].Err)
	default:
		conditions.Delete(p.set, v1alpha1.ConditionStalled)
		conditions.MarkTrue(p.set, v1alpha1.ConditionReady, v1alpha1.ReasonSucceeded, "%d applications are as the template has them", p.set.Status.Applications)
	}
}

func (p *setPass) notReady(reason, format string, args ...any) {
	conditions.Delete(p.set, v1alpha1.ConditionStalled)
	conditions.MarkFalse(p.set, v1alpha1.ConditionReady, reason, format, args...)
}

func (p *setPass) event(kind, reason, format string, args ...any) {
	p.r.apps.Events.Eventf(p.set, kind, reason, format, args...)
}

// writeStatus sends one PATCH if the status differs from what was read.
func (p *setPass) writeStatus(ctx context.Context) error {
	p.set.Status.ObservedGeneration = p.set.Generation
	p.set.Status.LastHandledReconcileAt = p.set.Annotations[annotationReconcile]
	if equality.Semantic.DeepEqual(p.before.Status, p.set.Status) {
		return nil
	}
	p.before.ResourceVersion = p.set.ResourceVersion
	if err := p.r.apps.Client.Status().Patch(ctx, p.set, client.MergeFrom(p.before)); err != nil {
		return fmt.Errorf("applicationset %s: status cannot be written: %w", p.set.Name, err)
	}
	p.before = p.set.DeepCopy()
	if version, err := strconv.ParseUint(p.set.ResourceVersion, 10, 64); err == nil {
		p.r.mu.Lock()
		p.r.written[client.ObjectKeyFromObject(p.set)] = version
		p.r.mu.Unlock()
	}
	return nil
}

// entries are those of all generators; empty says which of them found nothing.
func (p *setPass) entries(ctx context.Context) (entries []appset.Entry, empty string, err error) {
	if directories := p.set.Spec.Directories; directories != nil {
		tree, err := p.tree(ctx)
		if err != nil {
			return nil, "", err
		}
		if entries, err = appset.Directories(tree, directories.Pattern, directories.Exclude); err != nil {
			return nil, "", err
		}
		if len(entries) == 0 {
			empty = fmt.Sprintf("spec.directories.pattern %s matches nothing", directories.Pattern)
		}
	}
	if p.set.Spec.PullRequests != nil {
		previews, err := p.previews(ctx)
		if err != nil {
			return nil, "", err
		}
		entries = append(entries, previews...)
	}
	return append(entries, appset.List(p.set.Spec.List)...), empty, nil
}

// passingError marks what may be otherwise the next time.
type passingError struct {
	error
	reason string
	again  time.Duration // 0 where a watch will tell
}

// Unwrap returns the error.
func (e passingError) Unwrap() error { return e.error }

// tree is what the source of the template stands at.
func (p *setPass) tree(ctx context.Context) (gitsource.Tree, error) {
	ref := p.set.Spec.Template.Spec.SourceRef
	if ref.Kind == "" {
		ref.Kind = v1alpha1.KindGitSource
	}
	named := fmt.Sprintf("%s %s", ref.Kind, ref.Name)
	waiting := func(why string) error {
		return passingError{fmt.Errorf("%s %s", named, why), v1alpha1.ReasonSourceNotReady, 0}
	}
	revision, snapshotOf, err := p.r.standing(ctx, p.set.Namespace, ref)
	switch {
	case apierrors.IsNotFound(err):
		return nil, waiting("does not exist; create it or correct template.spec.sourceRef")
	case err != nil:
		return nil, passingError{fmt.Errorf("%s: %w", named, err), v1alpha1.ReasonSourceNotReady, 5 * time.Second}
	case revision == "":
		return nil, waiting("has no revision yet")
	}
	at, err := gitsource.ParseRevision(revision)
	if err != nil {
		return nil, err
	}
	snapshot, err := snapshotOf(ctx, at.ID)
	if err != nil {
		return nil, passingError{fmt.Errorf("revision %s of %s cannot be read: %w", at, named, err), v1alpha1.ReasonSourceUnreachable, 5 * time.Second}
	}
	return snapshot.Tree, nil
}

// standing returns where a source stands, and what reads it. What is not verified yet is nowhere.
func (r *ApplicationSetReconciler) standing(ctx context.Context, namespace string, ref v1alpha1.SourceRef) (string, func(context.Context, gitsource.ObjectID) (gitsource.Snapshot, error), error) {
	app := &v1alpha1.Application{}
	app.Namespace, app.Spec.SourceRef = namespace, ref
	if !ref.IsArtifact() {
		var source v1alpha1.GitSource
		if err := r.apps.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, &source); err != nil {
			return "", nil, err
		}
		if standing(&source) == "" {
			return "", nil, nil
		}
	}
	return r.apps.sourceOf(ctx, app)
}
