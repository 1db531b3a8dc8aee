package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fluxcd/pkg/runtime/conditions"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// fail marks the tip's Set. The mark is on the API server before anything else
// happens, so that nobody applies this Set again, whatever is killed from here on.
func (p *pass) fail(ctx context.Context, health overall) (ctrl.Result, error) {
	p.r.Failpoint(FailpointTraffic)
	failed := v1alpha1.SetRef{Revision: p.tip.String(), SetDigest: string(p.tipSet.Digest)} // a pre-apply hook fails before it is applied
	if applied := p.app.Status.Applied; applied != nil && applied.SetDigest == failed.SetDigest {
		failed = *applied
	}
	verdict := p.evidence(ctx, failed, health)
	failed.Revision = p.origin(ctx, failed)
	p.app.Status.Marks = []v1alpha1.Mark{{SetDigest: failed.SetDigest, Revision: failed.Revision, Verdict: verdict}}
	p.verdict(failed.SetDigest, verdict)
	conditions.MarkFalse(p.app, v1alpha1.ConditionHealthy, v1alpha1.ReasonHealthFailed, "%s", health.message)
	p.notReady(v1alpha1.ReasonHealthFailed, "%s failed: %s", failed.Revision, health.message)
	p.event(corev1.EventTypeWarning, v1alpha1.ReasonHealthFailed, "%s failed: %s", failed.Revision, health.message)
	if err := p.writeStatus(ctx); err != nil {
		return ctrl.Result{}, err
	}
	p.r.Failpoint(FailpointMark)
	return p.runMarked(ctx)
}

// evidence is the Rollout's own Verdict where a Rollout failed, else one on the health of the object.
func (p *pass) evidence(ctx context.Context, failed v1alpha1.SetRef, health overall) v1alpha1.Verdict {
	if health.failed.Group == v1alpha1.Group && health.failed.Kind == "Rollout" {
		rollout, err := p.liveRollout(ctx, health.failed)
		if err == nil && rollout != nil && rollout.Status.Verdict != nil {
			verdict := *rollout.Status.Verdict
			verdict.SetDigest = failed.SetDigest
			return verdict
		}
	}
	now := metav1.Time{Time: p.r.Now()}
	return v1alpha1.Verdict{
		Outcome: v1alpha1.VerdictFail, Reason: v1alpha1.ReasonHealthFailed, Message: health.message, At: now,
		SetDigest: failed.SetDigest,
		Samples:   []v1alpha1.Sample{{At: now, Check: "health of " + health.failed.String(), Value: health.message}},
	}
}

func (p *pass) isMarked(set manifests.Digest) bool { return p.mark(set) != nil }

func (p *pass) mark(set manifests.Digest) *v1alpha1.Mark {
	for i := range p.app.Status.Marks {
		if p.app.Status.Marks[i].SetDigest == string(set) {
			return &p.app.Status.Marks[i]
		}
	}
	return nil
}

// unmark lifts the marks when the tip renders to another Set, and closes the revert that this ends.
func (p *pass) unmark(ctx context.Context) {
	if len(p.app.Status.Marks) == 0 {
		return
	}
	mark := p.app.Status.Marks[0]
	p.app.Status.Marks = nil
	p.app.Status.RevertRequest = nil
	// Who brings the failed Set back wants it tried again.
	p.app.Status.Hooks = slices.DeleteFunc(p.app.Status.Hooks, func(run v1alpha1.HookRun) bool {
		return run.SetDigest == mark.SetDigest && run.Hook != manifests.HookOnFailure && run.Outcome != v1alpha1.HookSucceeded
	})
	conditions.Delete(p.app, v1alpha1.ConditionReverting)
	conditions.Delete(p.app, v1alpha1.ConditionHealthy)
	healthy := p.app.Status.Healthy
	if healthy == nil || healthy.SetDigest != string(p.tipSet.Digest) {
		p.event(corev1.EventTypeNormal, "Unmarked", "%s renders to another set than the failed one", p.tip)
		return
	}
	p.app.Status.LastRevert = &v1alpha1.RevertRecord{
		FailedSet: mark.SetDigest, HealthySet: healthy.SetDigest, Commit: string(p.tip.ID), At: metav1.Time{Time: p.r.Now()},
	}
	// The last healthy Set was applied meanwhile: it is the applied one, not a new version to judge.
	p.app.Status.Applied = &v1alpha1.SetRef{Revision: p.tip.String(), SetDigest: healthy.SetDigest, At: &metav1.Time{Time: p.r.Now()}}
	p.event(corev1.EventTypeNormal, "Reverted", "%s is back at the last healthy set; trace %s", p.tip, p.traceID(ctx, p.tip.ID))
}

// runMarked keeps the last healthy Set applied while Git still asks for the failed one, and has Git reverted.
func (p *pass) runMarked(ctx context.Context) (ctrl.Result, error) {
	mark := p.mark(p.tipSet.Digest)
	if mark == nil {
		return ctrl.Result{}, fmt.Errorf("application %s: set %s is not marked", p.app.Name, p.tipSet.Digest.Short())
	}
	if err := p.onFailure(ctx); err != nil {
		return ctrl.Result{}, err
	}
	if p.app.Status.Healthy == nil {
		p.stalled(v1alpha1.ReasonNoHealthySet, "%s failed (%s) and there is no healthy version to go back to; commit a corrected version", mark.Revision, mark.Verdict.Message)
		return ctrl.Result{}, nil
	}
	restored, result, err := p.restore(ctx)
	if err != nil || !restored {
		return result, err
	}
	if why := p.mustHold(ctx, mark); why != "" {
		p.stalled(v1alpha1.ReasonMarked, "%s failed (%s); the last healthy version runs. Not reverted in Git: %s", mark.Revision, mark.Verdict.Message, why)
		return ctrl.Result{}, nil
	}
	return p.revert(ctx, mark)
}

// restore applies the last healthy Set from its pinned commit.
func (p *pass) restore(ctx context.Context) (bool, ctrl.Result, error) {
	revision, err := gitsource.ParseRevision(p.app.Status.Healthy.Revision)
	if err != nil {
		return false, ctrl.Result{}, err
	}
	tree, err := p.repository.SnapshotOf(ctx, revision.ID)
	if err != nil {
		p.notReady(v1alpha1.ReasonSourceUnreachable, "last healthy revision %s cannot be read: %s", revision, err)
		return false, ctrl.Result{RequeueAfter: p.retry()}, nil
	}
	set, err := p.r.render(ctx, tree, p.app)
	if err != nil {
		return false, ctrl.Result{}, fmt.Errorf("application %s: last healthy revision %s: %w", p.app.Name, revision, err)
	}
	if string(set.Digest) != p.app.Status.Healthy.SetDigest {
		p.stalled(v1alpha1.ReasonMarked, "last healthy revision %s renders differently now (the Application was changed); commit a corrected version", revision)
		return false, ctrl.Result{}, nil
	}
	return p.apply(ctx, set, revision)
}

// mustHold says why a person has to decide instead of an automatic revert; empty if none has to.
func (p *pass) mustHold(ctx context.Context, mark *v1alpha1.Mark) string {
	if p.app.Spec.SourceRef.IsArtifact() {
		return "it comes from a registry, which keeps no history to revert; push a corrected version, or point the source at an older one"
	}
	if number := p.app.Labels[manifests.LabelPullRequest]; number != "" {
		return "it is the preview of pull request " + number + "; push a corrected commit to its branch"
	}
	if p.app.Spec.Environment == "" {
		return "the Application names no environment (spec.environment)"
	}
	if why := mustHoldSource(&p.source); why != "" {
		return why
	}
	if why := p.mustHoldSigned(ctx, mark); why != "" {
		return why
	}
	revision, err := gitsource.ParseRevision(mark.Revision)
	if err != nil {
		return err.Error()
	}
	// A request for this very commit is the same revert, not a second one.
	same := p.app.Status.RevertRequest != nil && p.app.Status.RevertRequest.Failed == string(revision.ID)
	if last := p.app.Status.LastRevert; last != nil && !last.Settled && !same {
		return "the last automatic revert has not been followed by a healthy state yet"
	}
	commit, err := p.repository.CommitOf(ctx, revision.ID)
	if err != nil {
		if errors.Is(err, gitsource.ErrNotFound) {
			return "the failed commit is no longer in the repository"
		}
		return "" // unknown now; the push will need the host anyway
	}
	if len(trailer.Parse(commit.Message).Reverts) > 0 {
		return "the failed commit is itself a revert"
	}
	return p.irreversible(ctx, revision.ID)
}

// traceID is the one that the commit's trailer gives to this Application, else one born with the commit.
func (p *pass) traceID(ctx context.Context, id gitsource.ObjectID) string {
	commit, err := p.repository.CommitOf(ctx, id)
	if err == nil {
		for _, change := range trailer.Parse(commit.Message).Changes {
			if change.App == p.appName() && change.Environment == p.app.Spec.Environment && change.Trace != "" {
				return change.Trace
			}
		}
	}
	return string(id[:min(32, len(id))])
}

func (p *pass) appName() string {
	if p.app.Spec.App != "" {
		return p.app.Spec.App
	}
	return p.app.Name
}
