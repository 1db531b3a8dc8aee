package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fluxcd/pkg/runtime/conditions"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

const annotationReconcile = manifests.AnnotationReconcile

// retry is how soon a passing trouble is looked at again.
func (p *pass) retry() time.Duration {
	if p.app.Spec.RetryInterval != nil {
		return p.app.Spec.RetryInterval.Duration
	}
	return 5 * time.Second
}

// pass is one reconciliation of one Application.
type pass struct {
	r      *ApplicationReconciler
	app    *v1alpha1.Application
	before *v1alpha1.Application

	source     v1alpha1.GitSource
	repository Repository
	tip        gitsource.Revision
	tipTree    gitsource.Snapshot
	tipSet     manifests.Set
	tipReads   gitsource.Reads
	hooks      []plan.Hook // of the tip's Set
	vanished   []manifests.Ref
	later      time.Duration // come back then, whatever else is up
	handing    plan.In       // of the last plan, for whom it concerns
	changed    bool          // something was applied in this pass
	news       string        // of it, not told yet
}

// Pause is the break-glass pause of AnnotationPause.
type Pause struct {
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
}

// run goes the way of one commit: fetch, render, admit, apply, judge, revert.
func (p *pass) run(ctx context.Context) (ctrl.Result, error) {
	if p.app.Spec.Suspend {
		p.notReady(v1alpha1.ReasonSuspended, "spec.suspend is true: nothing is applied or healed")
		return ctrl.Result{}, nil
	}
	if pause, active := p.paused(); active {
		p.notReady(v1alpha1.ReasonPaused, "paused by %s until %s: %s", pause.By, pause.Until.UTC().Format(time.RFC3339), pause.Reason)
		return ctrl.Result{RequeueAfter: pause.Until.Sub(p.r.Now())}, nil
	}
	if p.app.Spec.Interval != nil {
		p.later = jitter(p.app.Spec.Interval.Duration)
	}
	if ok, result, err := p.fetch(ctx); !ok {
		return result, err
	}
	rendered, err := p.r.rendered(ctx, p.tipTree, p.app)
	if err != nil {
		return p.renderFailed(ctx, err)
	}
	set := rendered.Set
	p.tipSet, p.tipReads = set, rendered.Reads
	if !p.checks() {
		return ctrl.Result{}, nil
	}
	if _, p.hooks, err = plan.CutHooks(set); err != nil {
		p.stalled(v1alpha1.ReasonRenderFailed, "%s", err)
		return ctrl.Result{}, nil
	}
	p.settlePast(ctx)
	p.attempted()
	if p.isMarked(set.Digest) {
		return p.runMarked(ctx)
	}
	p.unmark(ctx)
	if ready, err := p.dependencies(ctx); !ready {
		return ctrl.Result{}, err
	}
	admitted, again, err := p.admit(ctx, set)
	if !admitted {
		return again, err
	}
	result, err := p.runTip(ctx)
	return sooner(result, again), err
}

// fetch finds the tip and its tree.
func (p *pass) fetch(ctx context.Context) (bool, ctrl.Result, error) {
	if p.app.Spec.SourceRef.IsArtifact() {
		return p.fetchArtifact(ctx)
	}
	key := types.NamespacedName{Namespace: p.app.Namespace, Name: p.app.Spec.SourceRef.Name}
	if err := p.r.Client.Get(ctx, key, &p.source); err != nil {
		if !apierrors.IsNotFound(err) {
			return false, ctrl.Result{}, err
		}
		p.stalled(v1alpha1.ReasonSourceNotReady, "gitsource %s does not exist; create it or correct spec.sourceRef.name", key.Name)
		return false, ctrl.Result{RequeueAfter: p.retry()}, nil
	}
	if standing(&p.source) == "" {
		p.progressing(v1alpha1.ReasonSourceNotReady, "gitsource %s has no revision yet", key.Name)
		return false, ctrl.Result{}, nil
	}
	repository, err := p.r.open(ctx, &p.source)
	if err != nil {
		return false, ctrl.Result{}, err
	}
	p.repository = repository
	p.tip, err = gitsource.ParseRevision(p.source.Status.Revision)
	if err != nil {
		return false, ctrl.Result{}, err
	}
	p.tip.URL, p.tip.Signer = p.source.Spec.URL, p.source.Status.VerifiedBy
	p.tipTree, err = repository.SnapshotOf(ctx, p.tip.ID)
	if err != nil {
		p.notReady(v1alpha1.ReasonSourceUnreachable, "revision %s cannot be read: %s", p.tip, err)
		return false, ctrl.Result{RequeueAfter: p.retry()}, nil
	}
	return true, ctrl.Result{}, nil
}

// renderFailed keeps what is applied. What a commit broke waits for a commit; all else is tried again.
func (p *pass) renderFailed(ctx context.Context, err error) (ctrl.Result, error) {
	if ctx.Err() != nil {
		return ctrl.Result{}, ctx.Err()
	}
	var mistake interface{ UserMistake() bool }
	if errors.As(err, &mistake) && mistake.UserMistake() {
		p.stalled(v1alpha1.ReasonRenderFailed, "%s", err)
		return ctrl.Result{}, nil
	}
	p.notReady(v1alpha1.ReasonRenderFailed, "%s", err)
	return ctrl.Result{RequeueAfter: p.retry()}, nil
}

// attempted notes a Set the first time that the tip renders to it.
func (p *pass) attempted() {
	if p.app.Status.Attempted != nil && p.app.Status.Attempted.SetDigest == string(p.tipSet.Digest) {
		return
	}
	p.app.Status.Attempted = &v1alpha1.SetRef{
		Revision: p.tip.String(), SetDigest: string(p.tipSet.Digest), At: &metav1.Time{Time: p.r.Now()},
	}
}

func (p *pass) paused() (Pause, bool) {
	value, found := p.app.Annotations[manifests.AnnotationPause]
	if !found {
		return Pause{}, false
	}
	var pause Pause
	if err := json.Unmarshal([]byte(value), &pause); err != nil || pause.Reason == "" {
		return Pause{}, false // a pause without expiry and reason is none
	}
	return pause, pause.Until.After(p.r.Now())
}

// runTip applies the tip's Set and judges it.
func (p *pass) runTip(ctx context.Context) (ctrl.Result, error) {
	done, result, err := p.preApply(ctx)
	if !done {
		return result, err
	}
	done, result, err = p.apply(ctx, p.tipSet, p.tip)
	if !done {
		return result, err
	}
	p.applied(ctx)
	health := p.healthSoon(ctx)
	if health.state != HealthHealthy {
		p.tellApplied("")
	}
	switch health.state {
	case HealthFailed:
		if healthy := p.app.Status.Healthy; healthy != nil && healthy.SetDigest == p.app.Status.Applied.SetDigest {
			p.failsLater(health)
			return ctrl.Result{}, nil
		}
		return p.fail(ctx, health)
	case HealthHealthy:
		if done, result, err := p.postApply(ctx); !done {
			p.tellApplied("")
			return result, err
		}
		return ctrl.Result{}, p.healthy(ctx)
	default:
		return p.wait(health), nil
	}
}

// failsLater tells of a failure of the very Set that would be gone back to. No revert can mend that.
func (p *pass) failsLater(health overall) {
	if conditions.GetReason(p.app, v1alpha1.ConditionReady) != v1alpha1.ReasonHealthFailed {
		p.event(corev1.EventTypeWarning, v1alpha1.ReasonHealthFailed, "%s was healthy and has failed since: %s", p.app.Status.Applied.Revision, health.message)
	}
	conditions.MarkFalse(p.app, v1alpha1.ConditionHealthy, v1alpha1.ReasonHealthFailed, "%s", health.message)
	p.notReady(v1alpha1.ReasonHealthFailed, "%s was healthy and has failed since, so that there is nothing to go back to: %s", p.app.Status.Applied.Revision, health.message)
}

// applied notes a Set that was applied in full, once.
func (p *pass) applied(ctx context.Context) {
	if p.app.Status.Applied != nil && p.app.Status.Applied.SetDigest == string(p.tipSet.Digest) {
		return
	}
	now := metav1.Time{Time: p.r.Now()}
	p.app.Status.Applied = &v1alpha1.SetRef{Revision: p.tip.String(), SetDigest: string(p.tipSet.Digest), At: &now}
	var images []string
	for _, use := range p.tipSet.Images() {
		images = append(images, use.Image)
	}
	entry := v1alpha1.HistoryEntry{
		Revision: p.tip.String(), SetDigest: string(p.tipSet.Digest), Images: images, AppliedAt: now, TraceID: p.traceID(ctx, p.tip.ID),
	}
	p.app.Status.History = append([]v1alpha1.HistoryEntry{entry}, p.app.Status.History...)
	if len(p.app.Status.History) > historyLength {
		p.app.Status.History = p.app.Status.History[:historyLength]
	}
	p.news = fmt.Sprintf("applied %s (set %s)", p.tip, p.tipSet.Digest.Short())
}

// tellApplied writes the Event on what was applied in this pass, with what is known to have become of it.
func (p *pass) tellApplied(outcome string) {
	if p.news != "" {
		p.event(corev1.EventTypeNormal, "Applied", "%s%s", p.news, outcome)
	}
	p.news = ""
}

const historyLength = 10

// healthy notes the Set as the one to go back to and keeps its commit readable.
func (p *pass) healthy(ctx context.Context) error {
	p.well()
	applied := p.app.Status.Applied
	if p.app.Status.Healthy == nil || p.app.Status.Healthy.SetDigest != applied.SetDigest {
		revision, err := gitsource.ParseRevision(applied.Revision)
		if err != nil {
			return err
		}
		if err := p.repository.Pin(p.app.Name, revision.ID); err != nil {
			return fmt.Errorf("application %s: %s cannot be pinned: %w", p.app.Name, revision, err)
		}
		now := metav1.Time{Time: p.r.Now()}
		p.app.Status.Healthy = &v1alpha1.SetRef{Revision: applied.Revision, SetDigest: applied.SetDigest, At: &now}
		p.verdict(applied.SetDigest, v1alpha1.Verdict{Outcome: v1alpha1.VerdictPass, Reason: "Healthy", Message: "all objects are healthy", At: now, SetDigest: applied.SetDigest})
		if p.news == "" {
			p.event(corev1.EventTypeNormal, "Healthy", "%s is healthy", applied.Revision)
		}
		p.tellApplied("; it is healthy") // one Event for what is one thing to people
	}
	if last := p.app.Status.LastRevert; last != nil {
		last.Settled = true
	}
	p.tellApplied("")
	conditions.Delete(p.app, v1alpha1.ConditionHealthy)
	p.ready(v1alpha1.ReasonSucceeded, "%s is applied and healthy", applied.Revision)
	return nil
}

// bearable returns how long an Application that is Ready with this very Set may go on unwell.
func (p *pass) bearable() time.Duration {
	healthy := p.app.Status.Healthy
	if healthy == nil || healthy.SetDigest != p.app.Status.Applied.SetDigest || !conditions.IsReady(p.app) {
		return 0
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	since, known := p.r.unwell[p.app.Name]
	if !known {
		since = p.r.Now()
		p.r.unwell[p.app.Name] = since
	}
	return since.Add(unwell).Sub(p.r.Now())
}

func (p *pass) well() {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	delete(p.r.unwell, p.app.Name)
}

// verdict writes v into the newest history entry of a Set, without the evidence: that stands in the Mark, and in Git.
func (p *pass) verdict(setDigest string, v v1alpha1.Verdict) {
	v.Evidence = nil
	for i := range p.app.Status.History {
		if p.app.Status.History[i].SetDigest == setDigest {
			p.app.Status.History[i].Verdict = &v
			return
		}
	}
}

// unwell is how long a Set that was healthy may be short of something before it counts: an
// autoscaler's new pods, or one that moves to another node, are not worth a word.
const unwell = 30 * time.Second

// wait says what is not healthy yet. When the timeout ends that is Inconclusive, not a failure.
func (p *pass) wait(health overall) ctrl.Result {
	if left := p.bearable(); left > 0 {
		return ctrl.Result{RequeueAfter: left}
	}
	left := p.app.Status.Applied.At.Add(p.app.Spec.Timeout.Duration).Sub(p.r.Now())
	if left <= 0 {
		p.notReady(v1alpha1.ReasonHealthTimeout, "not healthy within %s, and not definitely failed: %s", p.app.Spec.Timeout.Duration, health.message)
		return ctrl.Result{}
	}
	p.progressing(v1alpha1.ReasonProgressing, "waiting: %s", health.message)
	return ctrl.Result{RequeueAfter: left}
}

func (p *pass) event(kind, reason, format string, args ...any) {
	p.r.Events.Eventf(p.app, kind, reason, format, args...)
}

// overall is the health of an Application.
type overall struct {
	state   HealthState
	message string
	failed  manifests.Ref
	early   bool // all that is not healthy yet has not been seen yet by who judges it
}

// healthSoon is health; where something was applied just now it waits a moment for those who have not seen it yet, so that
// what is healthy at once is written down once.
func (p *pass) healthSoon(ctx context.Context) overall {
	health := p.health()
	if !p.changed {
		return health
	}
	look := time.NewTicker(soon / 12)
	defer look.Stop()
	for end := time.After(soon); health.early; health = p.health() {
		select {
		case <-look.C:
		case <-end:
			return health
		case <-ctx.Done():
			return health
		}
	}
	return health
}

// soon is how long controllers are given to see what was applied, before it is written down that they have not.
const soon = 300 * time.Millisecond

// health is the worst of the owned objects: a definite failure, else what is still on its way.
func (p *pass) health() overall {
	result := overall{state: HealthHealthy}
	owned := p.owned()
	for _, ref := range owned.Refs() {
		if owned[ref].Bundled || owned[ref].Done || !judged(ref) || p.isHook(ref) {
			continue
		}
		health := p.r.Judge.Health(ref)
		if slices.Contains(p.vanished, ref) {
			health = Health{Message: "is gone, and nobody saw how it ended; change it in Git to have it run again"}
		}
		if health.State == HealthFailed {
			return overall{state: HealthFailed, message: ref.String() + ": " + health.Message, failed: ref}
		}
		if health.State == HealthHealthy {
			continue
		}
		if result.state == HealthHealthy {
			result = overall{state: health.State, message: ref.String() + ": " + health.Message, early: true}
		}
		result.early = result.early && health.Early
	}
	return result
}

// judged leaves out what cannot be unhealthy by itself: stored Bundles are data.
func judged(ref manifests.Ref) bool { return ref.Kind != "ControllerRevision" }

func (p *pass) owned() plan.Inventory {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	return p.r.inventory[p.app.Name]
}
