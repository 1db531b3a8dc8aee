package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/appset"
)

// PullRequests asks the hosts that repositories live on.
type PullRequests interface {
	// AllOpen returns all open pull requests to a branch, or an error: never a part of them. A *gitsource.BusyError among the
	// causes says when to ask again.
	AllOpen(ctx context.Context, at Hosted, base string) ([]forge.PullRequest, error)
}

// Hosted is a repository on a host with an API.
type Hosted struct {
	Host        v1alpha1.PullRequestHost
	URL         string // to clone from
	Credentials Credentials
}

// question is what pull requests were asked for. Who asks the same again soon gets the same answer.
type question struct {
	generation, sourceGeneration int64
	source                       types.UID
	revision                     string // of the source: a merge moves it
	asked                        string // the reconcile annotation
}

// answer is what a host said.
type answer struct {
	question
	list   []forge.PullRequest
	err    error
	failed int       // how often in a row
	until  time.Time // it is not asked again for the same
	busy   time.Time // nor for anything
}

// askedWithin bounds all calls of one look, so that a host that hangs does not keep sets of other hosts waiting.
const askedWithin = 30 * time.Second

// previews are the entries of the pull requests of a set, by what the host says now.
func (p *setPass) previews(ctx context.Context) ([]appset.Entry, error) {
	want := p.set.Spec.PullRequests
	name := p.set.Spec.Template.Spec.SourceRef.Name
	err := p.r.apps.Client.Get(ctx, types.NamespacedName{Namespace: p.set.Namespace, Name: name}, &p.source)
	switch {
	case apierrors.IsNotFound(err):
		return nil, passingError{fmt.Errorf("GitSource %s does not exist; create it or correct template.spec.sourceRef", name), v1alpha1.ReasonSourceNotReady, 0}
	case err != nil:
		return nil, passingError{fmt.Errorf("GitSource %s: %w", name, err), v1alpha1.ReasonSourceNotReady, 5 * time.Second}
	}
	base := want.Base
	if base == "" {
		if base = ruleOf(&p.source).BranchName(); base == "" {
			return nil, fmt.Errorf("spec.pullRequests.base: GitSource %s follows the %s; name the branch that pull requests go to", name, ruleOf(&p.source))
		}
	}
	said := p.r.proposed(ctx, p.set, &p.source, base)
	p.later = max(said.until.Sub(p.r.apps.Now()), time.Second)
	if said.err != nil {
		return nil, passingError{fmt.Errorf("the pull requests cannot be read: %w", said.err), v1alpha1.ReasonPullRequestsUnread, p.later}
	}
	return appset.PullRequests(said.list, *want, base, p.r.apps.Now()), nil
}

// proposed asks the host, unless it was asked the same a short while ago or wants to be left alone.
func (r *ApplicationSetReconciler) proposed(ctx context.Context, set *v1alpha1.ApplicationSet, source *v1alpha1.GitSource, base string) answer {
	key := client.ObjectKeyFromObject(set)
	now := r.apps.Now()
	asks := question{
		generation: set.Generation, sourceGeneration: source.Generation, source: source.UID,
		revision: source.Status.Revision, asked: set.Annotations[annotationReconcile],
	}
	r.mu.Lock()
	last, known := r.answers[key]
	r.mu.Unlock()
	if known && (last.question == asks && now.Before(last.until) || now.Before(last.busy)) {
		return last
	}
	next := answer{question: asks}
	next.list, next.err = r.ask(ctx, Hosted{Host: set.Spec.PullRequests.Host, URL: source.Spec.URL}, source, base)
	interval := set.Spec.PullRequests.Interval.Duration
	wait := jitter(interval)
	if next.err != nil {
		next.failed = min(last.failed+1, mostDoublings)
		wait = min(retrySource<<(next.failed-1), interval)
	}
	var busy *gitsource.BusyError
	if errors.As(next.err, &busy) {
		wait = busy.After + jitter(time.Second)
		next.busy = now.Add(wait)
	}
	next.until = now.Add(wait)
	r.mu.Lock()
	r.answers[key] = next
	r.mu.Unlock()
	return next
}

func (r *ApplicationSetReconciler) ask(ctx context.Context, at Hosted, source *v1alpha1.GitSource, base string) ([]forge.PullRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, askedWithin)
	defer cancel()
	var err error
	if at.Credentials, err = r.apps.credentials(ctx, source); err != nil {
		return nil, err
	}
	return r.pulls.AllOpen(ctx, at, base)
}

// sourceTaken reports why the GitSource of a preview cannot be written: it is not there, or it belongs to live, the
// Application of its name, or an error tells whose it is. With somebody else's, the preview would show what is not its pull request.
func (p *setPass) sourceTaken(ctx context.Context, name string, live *v1alpha1.Application) (*v1alpha1.GitSource, error) {
	var found v1alpha1.GitSource
	key := types.NamespacedName{Namespace: p.set.Namespace, Name: name}
	err := p.r.apps.Client.Get(ctx, key, &found)
	if apierrors.IsNotFound(err) {
		err = p.r.apps.Secrets.Get(ctx, key, &found) // the watch may lag behind
	}
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("gitsource %s cannot be read: %w", name, err)
	}
	owner := metav1.GetControllerOf(&found)
	switch {
	case owner != nil && live != nil && owner.UID == live.UID && found.DeletionTimestamp.IsZero():
		return &found, nil
	case owner != nil && owner.Kind == "Application" && owner.Name == name:
		return nil, fmt.Errorf("gitsource %s of an earlier preview is on its way out", name)
	}
	return nil, foreignError{fmt.Errorf("gitsource %s exists and is not of this preview; tell it apart in template.metadata.name", name)}
}

// applySource brings the GitSource of a preview, which is there unless it is nil, to the commit of its pull request. It
// reports whether it had to.
func (p *setPass) applySource(ctx context.Context, app appset.Application, owner metav1.Object, live *v1alpha1.GitSource) (bool, error) {
	object, err := app.Source(p.set, &p.source, owner)
	if err != nil {
		return false, err
	}
	if live != nil {
		if holds, err := appset.Holds(live, object); err != nil || holds {
			return false, err
		}
	}
	if err := p.r.apps.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(setManager), client.ForceOwnership); err != nil {
		return false, fmt.Errorf("gitsource %s is refused: %w", app.Name, err)
	}
	return true, nil
}
