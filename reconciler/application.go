package reconciler

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/fluxcd/pkg/runtime/conditions"
	fluxcontroller "github.com/fluxcd/pkg/runtime/controller"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/reconciler/expression"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// Finalizer keeps an Application until its objects are deleted or orphaned.
const Finalizer = v1alpha1.Group + "/application"

// Failpoints of the loop. FailpointApply lies between the Inventory that lists what an apply will bring in and its first
// request; the others are in the order of a failure, and the first two of them are those of an agent that pushes itself.
const (
	FailpointApply   = "before-first-apply"
	FailpointCommit  = "after-commit-before-push"
	FailpointPush    = "after-push-before-status"
	FailpointTraffic = "after-traffic-before-mark"
	FailpointMark    = "after-mark-before-request"
)

// ApplicationOptions for NewApplication.
type ApplicationOptions struct {
	Client       client.Client
	Secrets      client.Reader // uncached, see SourceOptions
	Repositories Repositories
	Artifacts    Artifacts // for sources that are not Git
	Renderer     Renderer
	Cluster      Cluster
	Judge        Judge
	Logs         Logs // of hooks that failed
	// As makes what Cluster, Judge and Logs do under the context be done by a ServiceAccount.
	As          func(ctx context.Context, account types.NamespacedName) context.Context
	Reverter    Reverter
	Images      policy.Chain[policy.ImageUse]
	Verifier    Verifier // of images that an ImagePolicy covers
	Events      record.EventRecorder
	Now         func() time.Time
	ClusterName string
	// Sign signs revert requests for the server; nil for an agent that pushes itself.
	Sign func(*v1alpha1.RevertRequest) error
	// CommitKey is the public half of the key that this agent's own commits are signed with; nil for none.
	CommitKey ed25519.PublicKey
	// Pushed is called after a revert was pushed, so that it is fetched at once; nil for nobody.
	Pushed func(ctx context.Context, url string)
	// Failpoint is called at named points, for tests that kill the process there; nil for none.
	Failpoint func(name string)
	// Metrics by the conventions of fluxcd/pkg/runtime; the zero value records nothing.
	Metrics fluxcontroller.Metrics
	// Concurrency is how many Applications are worked on at once; default 24.
	Concurrency int
}

// ApplicationReconciler keeps Applications applied.
type ApplicationReconciler struct {
	ApplicationOptions
	changed chan event.GenericEvent
	inputs  inputs

	compiled compilations

	mu        sync.Mutex
	inventory map[string]plan.Inventory     // what this process wrote last; the cache may lag behind
	written   map[string]uint64             // resourceVersion of the last status write
	seen      map[string]gitsource.Revision // that an Application was Ready at
	contests  map[string]map[manifests.Ref]*contest
	unwell    map[string]time.Time // since when an Application that was healthy is not
	settled   map[string]settled
	opened    map[types.UID]opened // by source
	stored    storedInventories
	relations *relations
}

// NewApplication returns the loop over Applications.
func NewApplication(o ApplicationOptions) (*ApplicationReconciler, error) {
	if o.Client == nil || o.Secrets == nil || o.Repositories == nil || o.Artifacts == nil || o.Renderer == nil || o.Cluster == nil ||
		o.Judge == nil || o.Logs == nil || o.As == nil || o.Reverter == nil || o.Verifier == nil || o.Events == nil || o.Now == nil {
		return nil, errors.New("application reconciler: client, secrets, repositories, artifacts, renderer, cluster, judge, logs, impersonation, reverter, verifier, events and clock are required")
	}
	if o.ClusterName == "" {
		return nil, errors.New("application reconciler: the cluster's name is required")
	}
	if len(o.Images) == 0 {
		return nil, errors.New("application reconciler: the image policy has no rule, so nothing could ever be applied")
	}
	if o.Concurrency == 0 {
		o.Concurrency = 24
	}
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
	if o.Pushed == nil {
		o.Pushed = func(context.Context, string) {}
	}
	return &ApplicationReconciler{
		ApplicationOptions: o,
		changed:            make(chan event.GenericEvent, 4096),
		compiled:           compilations{checks: map[v1alpha1.HealthCheck]expression.Health{}},
		inventory:          map[string]plan.Inventory{},
		written:            map[string]uint64{},
		seen:               map[string]gitsource.Revision{},
		contests:           map[string]map[manifests.Ref]*contest{},
		unwell:             map[string]time.Time{},
		settled:            map[string]settled{},
		opened:             map[types.UID]opened{},
		relations:          newRelations(),
	}, nil
}

// SetupWithManager registers the loop.
func (r *ApplicationReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.Application{}, builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}),
		)).
		Watches(&v1alpha1.GitSource{}, handler.EnqueueRequestsFromMapFunc(r.ofSource), builder.WithPredicates(revisionChanged())).
		Watches(&v1alpha1.Application{}, handler.EnqueueRequestsFromMapFunc(r.ofDependency), builder.WithPredicates(toldOthers())).
		Watches(&v1alpha1.OCISource{}, r.ofArtifact(v1alpha1.KindOCISource), builder.WithPredicates(artifactChanged())).
		Watches(&v1alpha1.ChartSource{}, r.ofArtifact(v1alpha1.KindChartSource), builder.WithPredicates(artifactChanged())).
		Watches(&v1alpha1.ImagePolicy{}, handler.EnqueueRequestsFromMapFunc(r.ofPolicy), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesMetadata(&corev1.ConfigMap{}, r.ofInput(v1alpha1.InputConfigMap)).
		WatchesMetadata(&corev1.Secret{}, r.ofInput(v1alpha1.InputSecret)).
		WatchesRawSource(source.Channel(r.changed, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.Concurrency}).
		Complete(r)
}

// Changed asks for a reconciliation of an Application because a live object of it changed.
func (r *ApplicationReconciler) Changed(name types.NamespacedName) {
	app := &v1alpha1.Application{}
	app.Namespace, app.Name = name.Namespace, name.Name
	r.changed <- event.GenericEvent{Object: app}
}

// revisionChanged lets pass what makes a difference to Applications: a new revision, or the first one.
func revisionChanged() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*v1alpha1.GitSource)
			after, ok2 := e.ObjectNew.(*v1alpha1.GitSource)
			return ok1 && ok2 && (standing(before) != standing(after) || !equality.Semantic.DeepEqual(before.Spec, after.Spec))
		},
	}
}

// Reconcile brings one Application one step further and writes its status once, if it changed.
func (r *ApplicationReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r.unsettle(req.Name)
	var app v1alpha1.Application
	if err := r.Client.Get(ctx, req.NamespacedName, &app); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	defer func(start time.Time) {
		r.Metrics.RecordDuration(ctx, &app, start)
		r.Metrics.RecordReadiness(ctx, &app)
		r.Metrics.RecordStalled(ctx, &app)
		r.Metrics.RecordSuspend(ctx, &app, app.Spec.Suspend)
	}(r.Now())
	if r.behind(&app) {
		return ctrl.Result{RequeueAfter: 20 * time.Millisecond}, nil
	}
	if name := app.Spec.ServiceAccountName; name != "" {
		ctx = r.As(ctx, types.NamespacedName{Namespace: app.Namespace, Name: name})
	}
	if !app.DeletionTimestamp.IsZero() {
		return r.finalize(ctx, &app)
	}
	if controllerutil.AddFinalizer(&app, Finalizer) {
		patch := fmt.Appendf(nil, `{"metadata":{"finalizers":["%s"],"resourceVersion":%q}}`, Finalizer, app.ResourceVersion)
		if err := r.Client.Patch(ctx, &app, client.RawPatch(types.MergePatchType, patch)); err != nil {
			return ctrl.Result{}, fmt.Errorf("application %s: finalizer cannot be set: %w", app.Name, err)
		}
	}
	p := &pass{r: r, app: &app, before: app.DeepCopy()}
	result, err := p.run(ctx)
	if writeErr := p.writeStatus(ctx); writeErr != nil {
		return ctrl.Result{}, errors.Join(err, writeErr)
	}
	p.looked()
	p.rest(result, err) // last: from here on a commit may pass it by
	if p.later > 0 && err == nil {
		result = sooner(result, ctrl.Result{RequeueAfter: p.later})
	}
	return result, err
}

// behind reports whether the cache has not yet caught up with our own last status write.
func (r *ApplicationReconciler) behind(app *v1alpha1.Application) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen, err := strconv.ParseUint(app.ResourceVersion, 10, 64)
	return err == nil && seen < r.written[app.Name]
}

func (r *ApplicationReconciler) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.inventory, name)
	delete(r.written, name)
	delete(r.unwell, name)
	delete(r.seen, name)
	delete(r.settled, name)
	delete(r.contests, name)
	r.relations.forget(name)
	r.Cluster.Track(name, nil)
	r.Judge.Checks(name, nil)
}

// writeStatus sends one PATCH if the status differs from what was read.
func (p *pass) writeStatus(ctx context.Context) error {
	p.app.Status.ObservedGeneration = p.app.Generation
	p.app.Status.LastHandledReconcileAt = p.app.Annotations[annotationReconcile]
	if equality.Semantic.DeepEqual(p.before.Status, p.app.Status) {
		return nil
	}
	p.before.ResourceVersion = p.app.ResourceVersion
	if err := p.r.Client.Status().Patch(ctx, p.app, client.MergeFrom(p.before)); err != nil {
		return fmt.Errorf("application %s: status cannot be written: %w", p.app.Name, err)
	}
	p.before = p.app.DeepCopy()
	if version, err := strconv.ParseUint(p.app.ResourceVersion, 10, 64); err == nil {
		p.r.mu.Lock()
		p.r.written[p.app.Name] = version
		p.r.mu.Unlock()
	}
	return nil
}

// ready, notReady and stalled set the summary conditions together.
func (p *pass) ready(reason, format string, args ...any) {
	conditions.Delete(p.app, v1alpha1.ConditionReconciling)
	conditions.Delete(p.app, v1alpha1.ConditionStalled)
	conditions.MarkTrue(p.app, v1alpha1.ConditionReady, reason, format, args...)
}

func (p *pass) progressing(reason, format string, args ...any) {
	conditions.Delete(p.app, v1alpha1.ConditionStalled)
	conditions.MarkReconciling(p.app, reason, format, args...)
	conditions.MarkUnknown(p.app, v1alpha1.ConditionReady, reason, format, args...)
}

func (p *pass) notReady(reason, format string, args ...any) {
	conditions.Delete(p.app, v1alpha1.ConditionReconciling)
	conditions.Delete(p.app, v1alpha1.ConditionStalled)
	conditions.MarkFalse(p.app, v1alpha1.ConditionReady, reason, format, args...)
}

func (p *pass) stalled(reason, format string, args ...any) {
	conditions.Delete(p.app, v1alpha1.ConditionReconciling)
	conditions.MarkStalled(p.app, reason, format, args...)
	conditions.MarkFalse(p.app, v1alpha1.ConditionReady, reason, format, args...)
}
