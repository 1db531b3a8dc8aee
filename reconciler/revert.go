package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/fluxcd/pkg/runtime/conditions"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// resend is how soon a revert is asked for again while Git does not show it.
const resend = 5 * 1e9

// revert composes the revert on the tip, stores the request, and has it carried out.
func (p *pass) revert(ctx context.Context, mark *v1alpha1.Mark) (ctrl.Result, error) {
	if last := p.app.Status.LastRevert; last != nil && last.FailedSet == mark.SetDigest && last.Branch != "" {
		p.needsPerson(mark, last.Branch, last.Why)
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
		why := cmp.Or(answer.Why, p.app.Status.RevertRequest.Why)
		p.app.Status.LastRevert = &v1alpha1.RevertRecord{
			FailedSet: mark.SetDigest, HealthySet: p.app.Status.Healthy.SetDigest, Branch: answer.Branch, Why: why, At: metav1.Time{Time: p.r.Now()},
		}
		p.event(corev1.EventTypeWarning, v1alpha1.ReasonRevertNeedsPerson, "branch %s waits for a person: %s", answer.Branch, why)
		p.needsPerson(mark, answer.Branch, why)
	default:
		// From here on it counts: another version that fails before this one is healthy waits for a person.
		p.app.Status.LastRevert = &v1alpha1.RevertRecord{
			FailedSet: mark.SetDigest, HealthySet: p.app.Status.Healthy.SetDigest, Commit: answer.Commit, At: metav1.Time{Time: p.r.Now()},
		}
		conditions.MarkTrue(p.app, v1alpha1.ConditionReverting, v1alpha1.ReasonRevertPushed, "revert commit %s", answer.Commit)
		p.event(corev1.EventTypeNormal, v1alpha1.ReasonRevertPushed, "revert commit %s is pushed", answer.Commit)
		p.notReady(v1alpha1.ReasonRevertPushed, "%s failed; the revert %s is pushed", mark.Revision, answer.Commit)
	}
	return ctrl.Result{RequeueAfter: resend}
}

func (p *pass) needsPerson(mark *v1alpha1.Mark, branch, why string) {
	p.notReady(v1alpha1.ReasonRevertNeedsPerson, "%s failed; the last healthy version runs; branch %s waits for a person: %s", mark.Revision, branch, why)
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
		switch {
		case errors.Is(err, gitsource.ErrMoved):
			return RevertAnswer{Superseded: true}, nil
		case !errors.Is(err, gitsource.ErrProtected):
			return RevertAnswer{Commit: string(commit)}, err
		}
		request.Why = fmt.Sprintf("the Git host does not let the agent push to %s (merge it, or let the agent push there)", request.Branch)
	}
	answer := RevertAnswer{Branch: "revert/" + request.Environment + "/" + request.App, Why: request.Why}
	err = repository.Push(ctx, "refs/heads/"+answer.Branch, "", commit)
	if errors.Is(err, gitsource.ErrMoved) {
		return answer, nil // it is there already and waits
	}
	return answer, err
}
