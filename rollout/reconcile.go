package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout/analysis"
)

// Reconcile looks at one Rollout in the caches. Only if that shows something to
// do it reads again from the API server, decides anew and does it: a cache may
// be behind, and acting on old knowledge could bring a failed version back.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var cached v1alpha1.Rollout
	if err := r.client.Get(ctx, request.NamespacedName, &cached); err != nil {
		r.forget(request.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if cached.DeletionTimestamp != nil {
		return r.finish(ctx, request.NamespacedName)
	}
	if cached.Labels[manifests.LabelApplication] == "" {
		return ctrl.Result{}, r.refuse(ctx, &cached, fmt.Sprintf("the label %s is missing: a Rollout belongs to an Application", manifests.LabelApplication))
	}
	if err := r.watchRoutes(&cached); err != nil && !meta.IsNoMatchError(err) { // that the kind is missing is refused below
		return ctrl.Result{}, err
	}
	r.failpoint(FailpointLook, &cached)
	wake, quiet := r.quiet(ctx, &cached)
	if quiet {
		r.metrics.inPhase(request.NamespacedName, cached.Status.Phase)
		return r.later(wake), nil
	}
	var rollout v1alpha1.Rollout
	if err := r.direct.Get(ctx, request.NamespacedName, &rollout); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if rollout.DeletionTimestamp != nil || rollout.Labels[manifests.LabelApplication] == "" {
		return ctrl.Result{RequeueAfter: time.Second}, nil // the cache will say so
	}
	p := &pass{r: r, rollout: &rollout, state: analysis.FromStatus(rollout.Status)}
	err := p.run(ctx)
	r.metrics.inPhase(request.NamespacedName, p.state.Phase)
	return r.later(p.wake), err
}

// later turns a time into a result; the zero time is none.
func (r *Reconciler) later(wake time.Time) ctrl.Result {
	if wake.IsZero() {
		return ctrl.Result{}
	}
	return ctrl.Result{RequeueAfter: max(wake.Sub(r.options.Now()), time.Millisecond)}
}

// quiet says that the caches show nothing to do, and when to look again.
func (r *Reconciler) quiet(ctx context.Context, cached *v1alpha1.Rollout) (time.Time, bool) {
	if cached.Spec.Bundle != nil && !controllerutil.ContainsFinalizer(cached, Finalizer) {
		return time.Time{}, false
	}
	o, err := r.observe(ctx, r.seen, cached)
	if err != nil {
		return time.Time{}, false
	}
	next, effects := analysis.Next(analysis.FromStatus(cached.Status), o)
	var wake time.Time
	for _, effect := range effects {
		at, only := effect.(analysis.WakeAt)
		if !only {
			return time.Time{}, false
		}
		wake = at.At
	}
	status := statusFor(cached, next, nil, o.Now)
	status.Outbox = r.outbox.left(cached, nil, o.Now)
	if !equality.Semantic.DeepEqual(cached.Status, status) {
		return time.Time{}, false
	}
	want := ""
	if a, beside := analysis.Arranged(next, o); beside {
		want = arrangedAs(cached, a, o)
	} else if _, placed, some := next.Want(); some {
		want = placed.Bundle
	}
	if want != "" {
		if drifts, complete := r.drifted(ctx, r.seen, cached, want); !complete || len(drifts) > 0 {
			return time.Time{}, false
		}
	}
	return wake, true
}

// refuse says why a Rollout cannot be worked on.
func (r *Reconciler) refuse(ctx context.Context, rollout *v1alpha1.Rollout, message string) error {
	return r.writeStatus(ctx, rollout, statusRefused(rollout, message, r.options.Now()))
}

// pass is one run over a Rollout with what the API server has.
type pass struct {
	r       *Reconciler
	rollout *v1alpha1.Rollout
	state   analysis.State
	o       analysis.Observation
	wake    time.Time
	failed  error           // a Record could not be written
	jobs    map[string]bool // of looks that are pending
	// occasions are what happened and does not stand in the status yet.
	occasions []v1alpha1.RolloutOccasion
}

// maxRounds bounds a pass: decide, look at pods or be refused, decide again.
const maxRounds = 6

// retryRefused is the pause after an apply was refused for reasons that may pass.
const retryRefused = time.Second

// run decides and acts until nothing but waiting is left.
func (p *pass) run(ctx context.Context) error {
	if p.rollout.Spec.Bundle != nil {
		if err := p.r.hold(ctx, p.rollout); err != nil {
			return err
		}
	}
	o, err := p.r.observe(ctx, p.r.direct, p.rollout)
	if no := (refused{}); errors.As(err, &no) {
		return p.r.refuse(ctx, p.rollout, no.Error())
	}
	if p.o = o; err != nil {
		p.o.Refusal = &analysis.Refusal{Message: err.Error()}
		p.soon(retryRefused)
	}
	for range maxRounds {
		next, effects := analysis.Next(p.state, p.o)
		p.r.witness(ctx, p.rollout, p.state, next)
		p.o.Looks, p.o.Answers = nil, nil // they are taken: what is due then has not been looked at
		again, err := p.act(ctx, next, effects)
		if err != nil {
			return err
		}
		if !again {
			return p.r.sweep(ctx, p.rollout, p.jobs)
		}
	}
	return errors.New("undecided after several looks")
}

// act does effects in order. It is true when Next has to be asked again.
func (p *pass) act(ctx context.Context, next analysis.State, effects []analysis.Effect) (again bool, err error) {
	judged := next.Verdict != nil && (p.state.Verdict == nil || p.state.Verdict.Outcome != next.Verdict.Outcome || next.Target.Digest != p.state.Target.Digest)
	p.occasions = append(p.occasions, analysis.Occasions(p.state, next, p.o.Now)...)
	p.state = next
	news, moves := contains[analysis.Record](effects), contains[analysis.Apply](effects) || contains[analysis.Inspect](effects) ||
		contains[analysis.Arrange](effects) || contains[analysis.Measure](effects) || contains[analysis.Call](effects)
	if !news && !moves {
		p.heal(ctx)
	}
	if news || !moves { // else the next round knows more
		p.record(ctx, judged)
	}
	for _, effect := range effects {
		switch e := effect.(type) {
		case analysis.Apply:
			if p.failed != nil && !e.Regardless {
				return false, p.failed
			}
			if e.Regardless {
				p.r.failpoint(FailpointVerdict, p.rollout)
			}
			again = !p.apply(ctx, e.Bundle, e.Placed) || again
		case analysis.Arrange:
			if p.failed != nil && !e.Regardless {
				return false, p.failed
			}
			if e.Regardless {
				p.r.failpoint(FailpointVerdict, p.rollout)
			}
			again = !p.arrange(ctx, e.Arrangement) || again
		case analysis.Tell:
			p.tell(e)
		case analysis.Evict:
			if err := p.evict(ctx, e.Pods); err != nil {
				return false, err
			}
		case analysis.Inspect:
			p.o.Pods, again = p.r.inspect(ctx, p.rollout, p.state.Course), true
		case analysis.Measure:
			p.o.Looks, again = p.r.measure(ctx, p.rollout, e, p.o.Now, p.failed == nil), true
			p.waitsFor(e)
		case analysis.Call:
			p.o.Answers, again = p.r.call(ctx, p.rollout, p.state, e.Names), true
		case analysis.WakeAt:
			if p.wake.IsZero() || e.At.Before(p.wake) {
				p.wake = e.At
			}
		}
	}
	if p.failed != nil {
		return false, p.failed
	}
	if judged && next.Verdict.Outcome == v1alpha1.VerdictPass {
		return again, p.r.collect(ctx, p.rollout)
	}
	return again, nil
}

// record writes the State with its conditions, if that is news.
func (p *pass) record(ctx context.Context, judged bool) {
	status := statusFor(p.rollout, p.state, p.o.Refusal, p.o.Now)
	status.Outbox = p.r.outbox.left(p.rollout, p.occasions, p.o.Now)
	err := p.r.writeStatus(ctx, p.rollout, status)
	p.failed = errors.Join(p.failed, err)
	if err == nil {
		p.occasions = nil
		p.r.outbox.dropped(p.rollout)
		p.r.failpoint(FailpointRecord, p.rollout)
	}
	if judged && err == nil {
		p.r.metrics.verdicts.WithLabelValues(p.state.Verdict.Outcome).Inc()
	}
}

// apply puts a Bundle in place and notes what there is to compare with. It is
// false when the Bundle was refused, which Next has to know.
func (p *pass) apply(ctx context.Context, bundle v1alpha1.BundleRef, placed analysis.Placed) bool {
	if byOrdinal(p.rollout) { // only the first version comes this way
		a := analysis.Arrangement{Stable: bundle, Placed: placed, StableReplicas: p.o.Size}
		return p.place(ctx, bundle, placed.Bundle, func() ([]v1alpha1.AppliedObject, error) { return p.r.arrangeOrdinals(ctx, p.rollout, a, p.o) })
	}
	return p.place(ctx, bundle, placed.Bundle, func() ([]v1alpha1.AppliedObject, error) {
		if err := p.takesOver(ctx, bundle); err != nil {
			return nil, err
		}
		return p.r.apply(ctx, p.rollout, bundle, placed)
	})
}

// arrange is apply for a Bundle beside stable.
func (p *pass) arrange(ctx context.Context, a analysis.Arrangement) bool {
	if !p.begins(ctx, a) {
		return true // p.failed says why
	}
	arrange := p.r.arrange
	if byOrdinal(p.rollout) {
		arrange = p.r.arrangeOrdinals
	}
	return p.place(ctx, a.Stable, arrangedAs(p.rollout, a, p.o), func() ([]v1alpha1.AppliedObject, error) { return arrange(ctx, p.rollout, a, p.o) })
}

func (p *pass) place(ctx context.Context, bundle v1alpha1.BundleRef, as string, do func() ([]v1alpha1.AppliedObject, error)) bool {
	var drifts []drift
	if before := p.rollout.Status.AppliedBundle; sameBundles(before, as) {
		drifts, _ = p.r.drifted(ctx, p.r.direct, p.rollout, before)
	}
	p.r.failpoint(FailpointArrange, p.rollout)
	applied, err := do()
	if errors.Is(err, errNotYet) {
		// What is in place by now is ours already: the next try must not take it for somebody's change.
		p.note(ctx, merged(p.rollout.Status.Applied, applied), p.rollout.Status.AppliedBundle)
		p.tellDrifts(drifts, applied, bundle) // it will not be one any more by then
		return p.awaits(err)
	}
	if err != nil {
		ctrl.LoggerFrom(ctx).Info("a bundle was not applied", "bundle", bundle.Name, "cause", err.Error())
		p.o.Refusal = refusalOf(err)
		p.soon(retryRefused)
		return false
	}
	p.r.failpoint(FailpointTraffic, p.rollout)
	p.o.Refusal = nil
	p.note(ctx, applied, as)
	p.tellDrifts(drifts, applied, bundle)
	return true
}

// tellDrifts says what others had changed of the objects that were applied by now. Others are not wanted any more, or come later.
func (p *pass) tellDrifts(drifts []drift, applied []v1alpha1.AppliedObject, from v1alpha1.BundleRef) {
	for _, d := range drifts {
		if slices.ContainsFunc(applied, func(one v1alpha1.AppliedObject) bool { return one.Kind == d.ref.Kind && one.Name == d.ref.Name }) {
			p.tell(analysis.Tell{Reason: v1alpha1.ReasonDrift, Message: fmt.Sprintf("%s: %s; restored from %s", d.ref, d.why, bundleName(&from))})
		}
	}
}

// note writes down what is in place. Without it a Bundle is applied once more later, which changes nothing.
func (p *pass) note(ctx context.Context, applied []v1alpha1.AppliedObject, as string) {
	status := p.rollout.Status.DeepCopy()
	status.Applied, status.AppliedBundle = applied, as
	p.failed = errors.Join(p.failed, p.r.writeStatus(ctx, p.rollout, *status))
}

// merged is old with what is newer of the same objects, and with what is new.
func merged(old, newer []v1alpha1.AppliedObject) []v1alpha1.AppliedObject {
	all := slices.Clone(old)
	for _, one := range newer {
		same := func(other v1alpha1.AppliedObject) bool {
			return other.Group == one.Group && other.Kind == one.Kind && other.Name == one.Name
		}
		if i := slices.IndexFunc(all, same); i >= 0 {
			all[i] = one
		} else {
			all = append(all, one)
		}
	}
	return all
}

// heal restores what others have changed, and completes what a kill has interrupted.
func (p *pass) heal(ctx context.Context) {
	if p.o.Refusal != nil {
		return
	}
	if a, beside := analysis.Arranged(p.state, p.o); beside {
		if drifts, complete := p.r.drifted(ctx, p.r.direct, p.rollout, arrangedAs(p.rollout, a, p.o)); !complete || len(drifts) > 0 {
			p.arrange(ctx, a)
		}
		return
	}
	bundle, want, some := p.state.Want()
	if !some || p.o.Workload.Placed != want {
		return
	}
	if drifts, complete := p.r.drifted(ctx, p.r.direct, p.rollout, want.Bundle); !complete || len(drifts) > 0 {
		p.apply(ctx, bundle, want)
	}
}

// soon asks to try again what could not be done.
func (p *pass) soon(pause time.Duration) {
	if at := p.o.Now.Add(pause); p.wake.IsZero() || at.Before(p.wake) {
		p.wake = at
	}
}

// tell emits an event; its annotations say what it is about.
func (p *pass) tell(e analysis.Tell) {
	kind := corev1.EventTypeNormal
	if e.Warning {
		kind = corev1.EventTypeWarning
	}
	annotations := map[string]string{}
	if target := p.state.Target; target != nil {
		annotations[v1alpha1.Group+"/revision"] = target.Revision
		annotations[manifests.AnnotationBundle] = target.Digest
	}
	p.r.options.Events.AnnotatedEventf(p.rollout, annotations, kind, e.Reason, "%s", e.Message)
}

func contains[E analysis.Effect](effects []analysis.Effect) bool {
	return slices.ContainsFunc(effects, func(effect analysis.Effect) bool {
		_, is := effect.(E)
		return is
	})
}
