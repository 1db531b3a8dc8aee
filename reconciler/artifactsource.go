package reconciler

import (
	"context"
	"errors"
	"fmt"
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
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

const (
	// retryArtifact is how soon a registry is asked again that did not answer. Registries count requests, so it is longer
	// than for Git.
	retryArtifact = 15 * time.Second
	// artifactTimeout bounds one look at a registry, with the pull of what is new.
	artifactTimeout = 2 * time.Minute
	// fetchers is how many sources are looked at at once, so that one slow registry does not hold up the others.
	fetchers = 4
)

// ArtifactReconciler follows the OCISources, or the ChartSources, of a cluster.
type ArtifactReconciler struct {
	ArtifactOptions
	kind string
}

// ArtifactOptions for NewOCISource and NewChartSource. All fields but Metrics are required.
type ArtifactOptions struct {
	Client    client.Client
	Secrets   client.Reader // uncached, see SourceOptions
	Artifacts Artifacts
	Now       func() time.Time
	Metrics   fluxcontroller.Metrics // as for Applications
}

func newArtifact(kind string, o ArtifactOptions) (*ArtifactReconciler, error) {
	if o.Client == nil || o.Secrets == nil || o.Artifacts == nil || o.Now == nil {
		return nil, fmt.Errorf("%s reconciler: client, secrets, artifacts and clock are required", kind)
	}
	return &ArtifactReconciler{ArtifactOptions: o, kind: kind}, nil
}

// SetupWithManager registers the loop.
func (r *ArtifactReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(newArtifactSource(r.kind), builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}),
		)).
		WithOptions(controller.Options{MaxConcurrentReconciles: fetchers}).
		Complete(r)
}

// Reconcile looks at the registry once. It writes status only when something changed.
func (r *ArtifactReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	src, ok := newArtifactSource(r.kind).(settable)
	if !ok {
		return ctrl.Result{}, fmt.Errorf("%s %s cannot be settable", r.kind, req.Name)
	}
	if err := r.Client.Get(ctx, req.NamespacedName, src); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !src.GetDeletionTimestamp().IsZero() {
		return ctrl.Result{}, nil
	}
	defer func(start time.Time) {
		r.Metrics.RecordDuration(ctx, src, start)
		r.Metrics.RecordReadiness(ctx, src)
	}(r.Now())
	before, ok := src.DeepCopyObject().(settable)
	if !ok {
		return ctrl.Result{}, fmt.Errorf("%s %s cannot be copied", r.kind, req.Name)
	}
	revision, err := r.look(ctx, src)
	if ctx.Err() != nil {
		return ctrl.Result{}, ctx.Err()
	}
	next := r.note(src, revision, err)
	status := src.ArtifactStatus()
	status.ObservedGeneration = src.GetGeneration()
	if !equality.Semantic.DeepEqual(before.ArtifactStatus(), status) {
		if err := r.Client.Status().Patch(ctx, src, client.MergeFrom(before)); err != nil {
			return ctrl.Result{}, fmt.Errorf("%s %s: status cannot be written: %w", r.kind, src.GetName(), err)
		}
	}
	return ctrl.Result{RequeueAfter: next}, nil
}

// settable is a source with the conditions of fluxcd/pkg/runtime.
type settable interface {
	artifactSource
	conditions.Setter
}

// refusedError is a signature that is definitely missing.
type refusedError struct{ policy.Decision }

func (e refusedError) Error() string { return e.String() }

// unknownSignatureError is a signature that nobody could tell about.
type unknownSignatureError struct{ error }

// look resolves the source, brings here what is new, and verifies it.
func (r *ArtifactReconciler) look(ctx context.Context, src artifactSource) (gitsource.Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, artifactTimeout)
	defer cancel()
	origin, err := originOf(ctx, r.Secrets, src)
	if err != nil {
		return gitsource.Revision{}, err
	}
	artifact, err := r.Artifacts.Open(origin)
	if err != nil {
		return gitsource.Revision{}, err
	}
	revision, err := artifact.Fetch(ctx)
	if err != nil {
		return gitsource.Revision{}, err
	}
	requirement := requirementOf(src)
	if requirement == nil {
		return revision, nil
	}
	decision, err := r.Artifacts.Verify(ctx, origin, revision.ID, *requirement)
	if err != nil {
		return revision, unknownSignatureError{err}
	}
	if !decision.Allowed() {
		return revision, refusedError{decision}
	}
	return revision, nil
}

// requirementOf returns what spec.verify asks for; nil if it asks for nothing.
func requirementOf(src artifactSource) *policy.Requirement {
	var verify *v1alpha1.ArtifactVerification
	switch src := src.(type) {
	case *v1alpha1.OCISource:
		verify = src.Spec.Verify
	case *v1alpha1.ChartSource:
		verify = src.Spec.Verify
	}
	if verify == nil {
		return nil
	}
	requirement := &policy.Requirement{Policy: "spec.verify"}
	for _, key := range verify.Keys {
		requirement.Keys = append(requirement.Keys, policy.Key{Name: key.Name, PEM: key.PEM})
	}
	return requirement
}

// note writes into the status what a look found out, and returns when to look again.
func (r *ArtifactReconciler) note(src settable, revision gitsource.Revision, err error) time.Duration {
	status, interval := src.ArtifactStatus(), intervalOf(src)
	if err == nil {
		if status.Revision != revision.String() {
			status.Revision = revision.String()
			status.FetchedAt = &metav1.Time{Time: r.Now()}
		}
		conditions.MarkTrue(src, meta.ReadyCondition, v1alpha1.ReasonSucceeded, "following %s", revision)
		return jitter(interval)
	}
	var refused refusedError
	var unverified unknownSignatureError
	var busy interface{ RetryAfter() time.Duration }
	reason, next := v1alpha1.ReasonSourceNotReady, min(retryArtifact, interval)
	switch {
	case errors.As(err, &refused):
		reason, next = v1alpha1.ReasonRefused, min(verifyAgain, interval)
		if status.Revision == revision.String() { // it was settable before anybody asked for signatures
			status.Revision, status.FetchedAt = "", nil
		}
	case errors.As(err, &unverified):
		reason = v1alpha1.ReasonUnverified
	case errors.Is(err, gitsource.ErrUnreachable):
		reason = v1alpha1.ReasonSourceUnreachable
	case errors.Is(err, gitsource.ErrNotFound), isMistake(err):
		next = interval
	}
	conditions.MarkFalse(src, meta.ReadyCondition, reason, "%s", err)
	if errors.As(err, &busy) { // it said when to come back; sooner it would only say so again
		return max(busy.RetryAfter(), jitter(next))
	}
	return jitter(next)
}

func intervalOf(src artifactSource) time.Duration {
	interval := time.Duration(0)
	switch src := src.(type) {
	case *v1alpha1.OCISource:
		interval = src.Spec.Interval.Duration
	case *v1alpha1.ChartSource:
		interval = src.Spec.Interval.Duration
	}
	return max(interval, time.Second)
}
