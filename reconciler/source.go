package reconciler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	fluxcontroller "github.com/fluxcd/pkg/runtime/controller"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// retrySource is how soon a source is looked at again after an error.
const retrySource = 3 * time.Second

// SourceReconciler follows what GitSources name: branches, tags, ranges of versions, commits.
type SourceReconciler struct {
	client       client.Client
	secrets      client.Reader
	repositories Repositories
	now          func() time.Time
	metrics      fluxcontroller.Metrics
	nudges       chan event.GenericEvent
	hosts        *hosts
}

// SourceOptions for NewSource. All fields but Metrics are required.
type SourceOptions struct {
	Client       client.Client
	Secrets      client.Reader // uncached: a Secret is read when it is needed, not watched
	Repositories Repositories
	Now          func() time.Time
	Metrics      fluxcontroller.Metrics // as for Applications
}

// NewSource returns the loop over GitSources.
func NewSource(o SourceOptions) (*SourceReconciler, error) {
	if o.Client == nil || o.Secrets == nil || o.Repositories == nil || o.Now == nil {
		return nil, errors.New("source reconciler: client, secrets, repositories and clock are required")
	}
	return &SourceReconciler{
		client: o.Client, secrets: o.Secrets, repositories: o.Repositories, now: o.Now, metrics: o.Metrics,
		nudges: make(chan event.GenericEvent, 64), hosts: newHosts(),
	}, nil
}

// SetupWithManager registers the loop.
func (r *SourceReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.GitSource{}, builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}),
		)).
		WatchesRawSource(source.Channel(r.nudges, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: fetches}).
		Complete(r)
}

// Nudge looks at all sources of a URL now; an empty URL means all sources.
// It never blocks: a nudge that finds no room is lost, and polling makes up for it.
func (r *SourceReconciler) Nudge(ctx context.Context, url string) {
	var sources v1alpha1.GitSourceList
	if err := r.client.List(ctx, &sources); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "nudge: list of sources cannot be read")
		return
	}
	for i := range sources.Items {
		if url != "" && sources.Items[i].Spec.URL != url {
			continue
		}
		select {
		case r.nudges <- event.GenericEvent{Object: &sources.Items[i]}:
		default:
		}
	}
}

// Reconcile looks at the remote ref once. It writes status only when something changed.
func (r *SourceReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var src v1alpha1.GitSource
	if err := r.client.Get(ctx, req.NamespacedName, &src); err != nil {
		r.hosts.forget(req.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !src.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	leave, wait := r.hosts.enter(req.NamespacedName, hostOf(src.Spec.URL), r.now())
	if leave == nil {
		return ctrl.Result{RequeueAfter: jitter(wait)}, nil
	}
	defer func(start time.Time) {
		r.metrics.RecordDuration(ctx, &src, start)
		r.metrics.RecordReadiness(ctx, &src)
	}(r.now())
	before := src.DeepCopy()
	next := r.follow(ctx, &src, leave)
	src.Status.ObservedGeneration = src.Generation
	if !equality.Semantic.DeepEqual(before.Status, src.Status) {
		if err := r.client.Status().Patch(ctx, &src, client.MergeFrom(before)); err != nil {
			return ctrl.Result{}, fmt.Errorf("gitsource %s: status cannot be written: %w", src.Name, err)
		}
	}
	return ctrl.Result{RequeueAfter: next}, nil
}

// follow looks where the source stands, notes it in the status, and says when to look again.
func (r *SourceReconciler) follow(ctx context.Context, src *v1alpha1.GitSource, leave func(error)) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	revision, err := r.fetch(ctx, src)
	if errors.As(err, new(unverifiedError)) {
		leave(nil) // the host has done its part
	} else {
		leave(err)
	}
	if err != nil {
		forgetUnverified(src)
		conditions.MarkFalse(src, meta.ReadyCondition, reasonOf(err), "%s", kept(src, err))
		if errors.As(err, new(unverifiedError)) {
			return jitter(src.Spec.Interval.Duration)
		}
		var busy *gitsource.BusyError
		if errors.As(err, &busy) {
			return busy.After + jitter(time.Second)
		}
		return jitter(r.hosts.again(client.ObjectKeyFromObject(src), src.Spec.Interval.Duration))
	}
	if src.Status.Revision != revision.String() {
		src.Status.Revision = revision.String()
		src.Status.FetchedAt = &metav1.Time{Time: r.now()}
	}
	src.Status.VerifiedBy = revision.Signer
	conditions.MarkTrue(src, meta.ReadyCondition, v1alpha1.ReasonSucceeded, "following %s", followed(src, revision))
	return jitter(src.Spec.Interval.Duration)
}

// jitter spreads an interval over plus or minus a tenth, so that agents do not poll in step.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d)) //nolint:gosec // not a secret
}
