package reconciler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/fluxcd/pkg/runtime/conditions"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// resend is how soon a revert is asked for again while Git does not show it.
const resend = 5 * 1e9

// revert composes the revert on the tip, stores the request, and has it carried out.
func (p *pass) revert(ctx context.Context, mark *v1alpha1.Mark) (ctrl.Result, error) {
	if last := p.app.Status.LastRevert; last != nil && last.FailedSet == mark.SetDigest && last.Branch != "" {
		p.notReady(v1alpha1.ReasonRevertNeedsPerson, "%s failed; the last healthy version runs; branch %s waits for a person", mark.Revision, last.Branch)
		return ctrl.Result{}, nil
	}
	request, err := p.compose(ctx, mark)
	if err != nil {
		return p.revertFailed(err, mark)
	}
	if stored := p.app.Status.RevertRequest; stored == nil || stored.Tip != request.Tip || stored.Tree != request.Tree {
		if p.r.Sign != nil {
			if err := p.r.Sign(&request); err != nil {
				return ctrl.Result{}, fmt.Errorf("application %s: revert request: %w", p.app.Name, err)
			}
		}
		p.app.Status.RevertRequest = &request
		conditions.MarkTrue(p.app, v1alpha1.ConditionReverting, v1alpha1.ReasonRevertRequested, "going back to %s", p.app.Status.Healthy.Revision)
		if err := p.writeStatus(ctx); err != nil {
			return ctrl.Result{}, err
		}
	}
	answer, err := p.r.Reverter.Revert(ctx, p.repository, *p.app.Status.RevertRequest)
	if err != nil {
		return p.revertFailed(err, mark)
	}
	p.r.Failpoint(FailpointPush)
	return p.answered(ctx, mark, answer), nil
}

// revertFailed says so and tries again: what was done in the cluster stands.
func (p *pass) revertFailed(err error, mark *v1alpha1.Mark) (ctrl.Result, error) {
	conditions.MarkTrue(p.app, v1alpha1.ConditionReverting, v1alpha1.ReasonRevertRequested, "not in Git yet: %s", err)
	p.notReady(v1alpha1.ReasonRevertRequested, "%s failed; the last healthy version runs; the revert is not in Git yet: %s", mark.Revision, err)
	return ctrl.Result{RequeueAfter: resend}, nil
}

func (p *pass) answered(ctx context.Context, mark *v1alpha1.Mark, answer RevertAnswer) ctrl.Result {
	p.r.Pushed(ctx, p.source.Spec.URL)
	switch {
	case answer.Superseded:
		p.notReady(v1alpha1.ReasonRevertRequested, "%s failed; the branch has moved, the revert is computed again", mark.Revision)
	case answer.Branch != "" && answer.Commit == "":
		p.app.Status.LastRevert = &v1alpha1.RevertRecord{
			FailedSet: mark.SetDigest, HealthySet: p.app.Status.Healthy.SetDigest, Branch: answer.Branch, At: metav1.Time{Time: p.r.Now()},
		}
		p.event(corev1.EventTypeWarning, v1alpha1.ReasonRevertNeedsPerson, "branch %s waits for a person: %s", answer.Branch, p.app.Status.RevertRequest.Why)
		p.notReady(v1alpha1.ReasonRevertNeedsPerson, "%s failed; the last healthy version runs; branch %s waits for a person: %s", mark.Revision, answer.Branch, p.app.Status.RevertRequest.Why)
	default:
		conditions.MarkTrue(p.app, v1alpha1.ConditionReverting, v1alpha1.ReasonRevertPushed, "revert commit %s", answer.Commit)
		p.event(corev1.EventTypeNormal, v1alpha1.ReasonRevertPushed, "revert commit %s is pushed", answer.Commit)
		p.notReady(v1alpha1.ReasonRevertPushed, "%s failed; the revert %s is pushed", mark.Revision, answer.Commit)
	}
	return ctrl.Result{RequeueAfter: resend}
}

// compose computes what Git is to show. Its time is that of the verdict, so that
// composing again on the same tip gives the same commit.
func (p *pass) compose(ctx context.Context, mark *v1alpha1.Mark) (v1alpha1.RevertRequest, error) {
	failed, err := gitsource.ParseRevision(mark.Revision)
	if err != nil {
		return v1alpha1.RevertRequest{}, err
	}
	healthy, err := gitsource.ParseRevision(p.app.Status.Healthy.Revision)
	if err != nil {
		return v1alpha1.RevertRequest{}, err
	}
	failedTree, err := p.repository.SnapshotOf(ctx, failed.ID)
	if err != nil {
		return v1alpha1.RevertRequest{}, fmt.Errorf("failed revision %s: %w", failed, err)
	}
	healthyTree, err := p.repository.SnapshotOf(ctx, healthy.ID)
	if err != nil {
		return v1alpha1.RevertRequest{}, fmt.Errorf("healthy revision %s: %w", healthy, err)
	}
	facts := undo.Facts{
		Cluster: p.r.ClusterName, App: p.appName(), Environment: p.app.Spec.Environment, Path: path.Clean(p.app.Spec.Path),
		Failed: failed.ID, Healthy: healthy.ID, At: mark.Verdict.At.Time,
		Holds: undo.Left(imagesAt(failedTree, p.app.Spec.Path), imagesAt(healthyTree, p.app.Spec.Path)),
	}
	evidence := undo.Evidence{Verdict: mark.Verdict, Trace: p.traceID(ctx, failed.ID)}
	trees := undo.Trees{Failed: failedTree.Tree, Tip: p.tipTree.Tree, Healthy: healthyTree.Tree}
	composed, err := undo.ComposeRevert(trees, facts, evidence)
	var conflict *undo.ConflictError
	if errors.As(err, &conflict) {
		return v1alpha1.RevertRequest{}, fmt.Errorf("a person has to revert: %w", err)
	}
	if err != nil {
		return v1alpha1.RevertRequest{}, err
	}
	tree, err := p.repository.WriteTree(p.tip.ID, composed.Changes)
	if err != nil {
		return v1alpha1.RevertRequest{}, err
	}
	evidence.Why, err = p.inTheWay(ctx, composed, tree)
	if err != nil {
		return v1alpha1.RevertRequest{}, err
	}
	return v1alpha1.RevertRequest{
		URL: p.source.Spec.URL, Branch: p.source.Spec.Branch, Cluster: facts.Cluster, App: facts.App, Environment: facts.Environment,
		Path: facts.Path, Tip: string(p.tip.ID), Failed: string(failed.ID), Healthy: string(healthy.ID), Tree: string(tree),
		Message: undo.Message(facts, evidence), Holds: facts.Holds, Direct: evidence.Why == "", Why: evidence.Why,
		At: metav1.Time{Time: facts.At},
	}, nil
}

// inTheWay renders what would result: this Application must be back at its last
// healthy Set, and every other one as it is. It returns what speaks against a direct push.
func (p *pass) inTheWay(ctx context.Context, composed undo.Revert, tree gitsource.ObjectID) (string, error) {
	trial, err := p.repository.Commit(gitsource.NewCommit{
		Parents: []gitsource.ObjectID{p.tip.ID}, Tree: tree, Message: composed.Message, Author: composed.Author, Committer: composed.Author,
	})
	if err != nil {
		return "", err
	}
	after, err := p.repository.SnapshotOf(ctx, trial)
	if err != nil {
		return "", err
	}
	set, err := p.r.Renderer.Render(ctx, after, p.app)
	if err != nil {
		return "the reverted path does not render: " + err.Error(), nil //nolint:nilerr // it is the answer
	}
	if string(set.Digest) != p.app.Status.Healthy.SetDigest {
		return "taking back the files under " + p.app.Spec.Path + " does not bring back the last healthy set; the failure came from files outside of it, a shared base perhaps", nil
	}
	return p.neighbours(ctx, after)
}

// neighbours compares every other Application of this source before and after.
func (p *pass) neighbours(ctx context.Context, after gitsource.Snapshot) (string, error) {
	var apps v1alpha1.ApplicationList
	if err := p.r.Client.List(ctx, &apps, client.InNamespace(p.app.Namespace)); err != nil {
		return "", err
	}
	for i := range apps.Items {
		other := &apps.Items[i]
		if other.Name == p.app.Name || other.Spec.SourceRef.Name != p.app.Spec.SourceRef.Name {
			continue
		}
		now, errNow := p.r.Renderer.Render(ctx, p.tipTree, other)
		then, errThen := p.r.Renderer.Render(ctx, after, other)
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if (errNow == nil) != (errThen == nil) || (errNow == nil && now.Digest != then.Digest) {
			return "it would change application " + other.Name + " too", nil
		}
	}
	return "", nil
}

// imagesAt reads the image entries of the kustomization at dir; none if there is no such file.
func imagesAt(snapshot gitsource.Snapshot, dir string) []edit.Image {
	for _, name := range []string{"kustomization.yaml", "kustomization.yml", "Kustomization"} {
		content, err := snapshot.Tree.ReadFile(path.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) || err != nil {
			continue
		}
		images, err := edit.Current(content)
		if err == nil {
			return images
		}
	}
	return nil
}

// Pusher is the Reverter of an agent that may push itself.
type Pusher struct {
	Failpoint func(name string) // may be nil
}

// Revert pushes the revert to the followed branch, or to a branch of its own when a person has to decide.
func (u Pusher) Revert(ctx context.Context, repository Repository, request v1alpha1.RevertRequest) (RevertAnswer, error) {
	author := undo.Author(undo.Facts{Cluster: request.Cluster, At: request.At.Time})
	tip := gitsource.ObjectID(request.Tip)
	commit, err := repository.Commit(gitsource.NewCommit{
		Parents: []gitsource.ObjectID{tip}, Tree: gitsource.ObjectID(request.Tree), Message: request.Message, Author: author, Committer: author,
	})
	if err != nil {
		return RevertAnswer{}, err
	}
	if u.Failpoint != nil {
		u.Failpoint(FailpointCommit)
	}
	if request.Direct {
		err := repository.Push(ctx, "refs/heads/"+request.Branch, tip, commit)
		if errors.Is(err, gitsource.ErrMoved) {
			return RevertAnswer{Superseded: true}, nil
		}
		return RevertAnswer{Commit: string(commit)}, err
	}
	branch := "revert/" + request.Environment + "/" + request.App
	err = repository.Push(ctx, "refs/heads/"+branch, "", commit)
	if errors.Is(err, gitsource.ErrMoved) {
		return RevertAnswer{Branch: branch}, nil // it is there already and waits
	}
	return RevertAnswer{Branch: branch}, err
}
