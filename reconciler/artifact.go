package reconciler

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

// This file joins what is not Git to the Application loop: to it, an artifact is a repository without history that
// nobody can write to.

// Origin says where an artifact comes from and which version of it is meant.
type Origin struct {
	URL    string // oci://HOST/PATH, or https:// of a chart repository
	Chart  string // of a chart repository; empty for an artifact
	Tag    string
	Range  string // of semantic versions
	Digest string // sha256:...
	Login  OriginLogin
	// Provider is a cloud that gives tokens where Login has nothing: "gcp"; "generic" or empty for none.
	Provider string
}

// OriginLogin is a pull secret; the zero value is anonymous.
type OriginLogin struct {
	DockerConfig policy.Secret // content of .dockerconfigjson
	Username     string        // or these
	Password     policy.Secret
}

// Artifacts opens artifacts. Opening does not use the network.
type Artifacts interface {
	Open(origin Origin) (Artifact, error)
	// Verify tells whether what a digest names is signed. Its error says that nobody knows.
	Verify(ctx context.Context, origin Origin, digest gitsource.ObjectID, requirement policy.Requirement) (policy.Decision, error)
}

// Artifact is one artifact or chart. Its errors wrap those of Reader; those that only another push can mend have a
// method UserMistake that returns true, and those of a registry that said when to come back one RetryAfter.
type Artifact interface {
	Pinner
	// Fetch resolves and brings here what the Origin means now. The ID of the Revision is the digest.
	Fetch(ctx context.Context) (gitsource.Revision, error)
	SnapshotOf(ctx context.Context, digest gitsource.ObjectID) (gitsource.Snapshot, error)
}

// errNoHistory is what an artifact answers where a repository would tell of commits.
var errNoHistory = fmt.Errorf("an artifact has no commits: %w", gitsource.ErrNotFound)

// artifactRepository is an Artifact as the loop wants it.
type artifactRepository struct{ Artifact }

func (a artifactRepository) FetchChosen(ctx context.Context, _ func(map[string]gitsource.ObjectID) (string, error)) (gitsource.Revision, error) {
	return a.Fetch(ctx)
}

func (artifactRepository) CommitOf(context.Context, gitsource.ObjectID) (gitsource.Commit, error) {
	return gitsource.Commit{}, errNoHistory
}

func (artifactRepository) Object(context.Context, gitsource.ObjectID) ([]byte, error) {
	return nil, errNoHistory
}

func (artifactRepository) Log(context.Context, gitsource.ObjectID, int) ([]gitsource.Commit, error) {
	return nil, errNoHistory
}

func (artifactRepository) MergeBase(context.Context, gitsource.ObjectID, gitsource.ObjectID) (gitsource.ObjectID, error) {
	return "", errNoHistory
}

func (artifactRepository) WriteTree(gitsource.ObjectID, []gitsource.Change) (gitsource.ObjectID, error) {
	return "", errNoHistory
}

func (artifactRepository) Commit(gitsource.NewCommit) (gitsource.ObjectID, error) {
	return "", errNoHistory
}

func (artifactRepository) Push(context.Context, string, gitsource.ObjectID, gitsource.ObjectID) error {
	return errNoHistory
}

// artifactSource is an OCISource or a ChartSource.
type artifactSource interface {
	client.Object
	ArtifactStatus() *v1alpha1.ArtifactStatus
}

func newArtifactSource(kind string) artifactSource {
	if kind == v1alpha1.KindChartSource {
		return &v1alpha1.ChartSource{}
	}
	return &v1alpha1.OCISource{}
}

// originOf reads the spec of a source and its pull secret.
func originOf(ctx context.Context, secrets client.Reader, src artifactSource) (Origin, error) {
	var origin Origin
	var ref *v1alpha1.LocalRef
	switch src := src.(type) {
	case *v1alpha1.OCISource:
		origin = Origin{URL: src.Spec.URL, Tag: src.Spec.Ref.Tag, Range: src.Spec.Ref.SemVer, Digest: src.Spec.Ref.Digest, Provider: src.Spec.Provider}
		ref = src.Spec.SecretRef
	case *v1alpha1.ChartSource:
		origin = Origin{URL: src.Spec.Repository, Chart: src.Spec.Chart, Range: src.Spec.Version, Digest: src.Spec.Digest, Provider: src.Spec.Provider}
		ref = src.Spec.SecretRef
	}
	if ref == nil {
		return origin, nil
	}
	var secret corev1.Secret
	if err := secrets.Get(ctx, types.NamespacedName{Namespace: src.GetNamespace(), Name: ref.Name}, &secret); err != nil {
		return origin, fmt.Errorf("secret %s: %w", ref.Name, err)
	}
	if config, found := secret.Data[corev1.DockerConfigJsonKey]; found {
		origin.Login.DockerConfig = policy.NewSecret(string(config))
		return origin, nil
	}
	if len(secret.Data["username"]) == 0 {
		return origin, fmt.Errorf("secret %s: want %s, or username and password", ref.Name, corev1.DockerConfigJsonKey)
	}
	origin.Login.Username = string(secret.Data["username"])
	origin.Login.Password = policy.NewSecret(string(secret.Data["password"]))
	return origin, nil
}

// openArtifact reads the source of an Application that is not Git, and opens it.
func (r *ApplicationReconciler) openArtifact(ctx context.Context, app *v1alpha1.Application) (artifactSource, Artifact, error) {
	src := newArtifactSource(app.Spec.SourceRef.Kind)
	key := types.NamespacedName{Namespace: app.Namespace, Name: app.Spec.SourceRef.Name}
	if err := r.Client.Get(ctx, key, src); err != nil {
		return nil, nil, err
	}
	origin, err := originOf(ctx, r.Secrets, src)
	if err != nil {
		return src, nil, err
	}
	artifact, err := r.Artifacts.Open(origin)
	return src, artifact, err
}

// fetchArtifact is fetch for sources that are not Git.
func (p *pass) fetchArtifact(ctx context.Context) (bool, ctrl.Result, error) {
	ref := p.app.Spec.SourceRef
	src, artifact, err := p.r.openArtifact(ctx, p.app)
	switch {
	case src == nil && apierrors.IsNotFound(err):
		p.stalled(v1alpha1.ReasonSourceNotReady, "%s %s does not exist; create it or correct spec.sourceRef", ref.Kind, ref.Name)
		return false, ctrl.Result{RequeueAfter: p.retry()}, nil
	case src == nil:
		return false, ctrl.Result{}, err
	case err != nil:
		p.notReady(v1alpha1.ReasonSourceNotReady, "%s %s: %s", ref.Kind, ref.Name, err)
		return false, ctrl.Result{RequeueAfter: retryArtifact}, nil
	case src.ArtifactStatus().Revision == "":
		p.progressing(v1alpha1.ReasonSourceNotReady, "%s %s has no revision yet", ref.Kind, ref.Name)
		return false, ctrl.Result{}, nil
	}
	p.repository = artifactRepository{artifact}
	if p.tip, err = gitsource.ParseRevision(src.ArtifactStatus().Revision); err != nil {
		return false, ctrl.Result{}, err
	}
	if p.tipTree, err = artifact.SnapshotOf(ctx, p.tip.ID); err != nil {
		p.notReady(v1alpha1.ReasonSourceUnreachable, "revision %s cannot be read: %s", p.tip, err)
		return false, ctrl.Result{RequeueAfter: retryArtifact}, nil
	}
	return true, ctrl.Result{}, nil
}

// unpinArtifact lets go of what an Application that goes has pinned. A pin that stays costs some bytes, so it never fails.
func (p *pass) unpinArtifact(ctx context.Context) error {
	if _, artifact, err := p.r.openArtifact(ctx, p.app); err == nil {
		return artifact.Unpin(p.app.Name)
	}
	return nil
}

// ofArtifact lists the Applications of a source that is not Git.
func (r *ApplicationReconciler) ofArtifact(kind string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, src client.Object) []reconcile.Request {
		var apps v1alpha1.ApplicationList
		if err := r.Client.List(ctx, &apps, client.InNamespace(src.GetNamespace())); err != nil {
			return nil
		}
		var requests []reconcile.Request
		for i := range apps.Items {
			if apps.Items[i].Spec.SourceRef == (v1alpha1.SourceRef{Kind: kind, Name: src.GetName()}) {
				requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&apps.Items[i])})
			}
		}
		return requests
	})
}

// artifactChanged lets pass what makes a difference to Applications: a new revision, or another spec.
func artifactChanged() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(artifactSource)
			after, ok2 := e.ObjectNew.(artifactSource)
			return ok1 && ok2 && (before.ArtifactStatus().Revision != after.ArtifactStatus().Revision || before.GetGeneration() != after.GetGeneration())
		},
	}
}

// isMistake reports whether only another push or spec can mend err.
func isMistake(err error) bool {
	var mistake interface{ UserMistake() bool }
	return errors.As(err, &mistake) && mistake.UserMistake()
}
