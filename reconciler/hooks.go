package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// preApply runs the hooks that come before an apply, once CustomResourceDefinitions and Namespaces are there. It reports
// false while they run and when one failed.
func (p *pass) preApply(ctx context.Context) (bool, ctrl.Result, error) {
	applied := slices.ContainsFunc(p.app.Status.History, func(e v1alpha1.HistoryEntry) bool { return e.SetDigest == string(p.tipSet.Digest) })
	if applied || !p.pending(manifests.HookPreApply) {
		return true, ctrl.Result{}, nil
	}
	todo, ok, result, err := p.prepare(ctx, p.tipSet, p.tip)
	if !ok {
		return false, result, err
	}
	if done, result, err := p.carryOut(ctx, todo.Foundation()); !done {
		return false, result, err
	}
	return p.runHooks(ctx, manifests.HookPreApply)
}

// postApply runs the hooks that decide about a Set which is applied and healthy otherwise.
func (p *pass) postApply(ctx context.Context) (bool, ctrl.Result, error) {
	if !p.pending(manifests.HookPostApply) {
		return true, ctrl.Result{}, nil
	}
	return p.runHooks(ctx, manifests.HookPostApply)
}

// pending reports whether hooks of the tip's Set have to run, or run. A Set that was healthy once has had them, and a
// revert, which brings back just that, runs none.
func (p *pass) pending(when string) bool {
	if len(plan.HookWaves(p.hooks, when)) == 0 {
		return false
	}
	digest := string(p.tipSet.Digest)
	if healthy := p.app.Status.Healthy; healthy != nil && healthy.SetDigest == digest {
		return false
	}
	for _, entry := range p.app.Status.History {
		if entry.SetDigest == digest && entry.Verdict != nil && entry.Verdict.Outcome == v1alpha1.VerdictPass {
			return false
		}
	}
	return slices.ContainsFunc(p.hooks, func(h plan.Hook) bool {
		run := p.hookRun(h)
		return h.When == when && (run == nil || run.Outcome != v1alpha1.HookSucceeded)
	})
}

// runHooks brings the hooks of one kind on, wave by wave; it reports true when all have succeeded.
func (p *pass) runHooks(ctx context.Context, when string) (bool, ctrl.Result, error) {
	for _, wave := range plan.HookWaves(p.hooks, when) {
		due := slices.DeleteFunc(wave, func(h plan.Hook) bool {
			run := p.hookRun(h)
			return run != nil && run.Outcome == v1alpha1.HookSucceeded
		})
		seen, ok, result, err := p.startHooks(ctx, due)
		if !ok {
			return false, result, err
		}
		waits, failed, err := p.settle(ctx, due, seen)
		switch {
		case err != nil:
			return false, ctrl.Result{}, err
		case failed != nil:
			result, err := p.fail(ctx, *failed)
			return false, result, err
		case len(waits) > 0:
			return false, p.waitForHook(waits[0]), nil
		}
	}
	return true, ctrl.Result{}, nil
}

// waitForHook is woken by the watch; the timeout says so when that takes long.
func (p *pass) waitForHook(hook plan.Hook) ctrl.Result {
	run := p.hookRun(hook)
	left := p.app.Spec.Timeout.Duration
	if run != nil {
		left = run.At.Add(left).Sub(p.r.Now())
	}
	if left <= 0 {
		p.notReady(v1alpha1.ReasonHealthTimeout, "%s hook %s has neither succeeded nor failed within %s; give the Job an activeDeadlineSeconds, or delete it",
			hook.When, hook.Ref, p.app.Spec.Timeout.Duration)
		return ctrl.Result{}
	}
	p.progressing(v1alpha1.ReasonProgressing, "waiting for the %s hook %s", hook.When, hook.Ref)
	return ctrl.Result{RequeueAfter: left}
}

// startHooks starts what does not run yet and returns what was seen last. That a hook runs is on record before its Job is
// there, so that the Job is never taken for somebody else's.
func (p *pass) startHooks(ctx context.Context, due []plan.Hook) (plan.Observed, bool, ctrl.Result, error) {
	for range 4 { // delete what another Set left, create, look
		owned, err := p.loadInventory(ctx)
		if err != nil {
			return nil, false, ctrl.Result{}, err
		}
		seen := p.observeHooks(ctx, due, owned)
		todo, err := plan.StartHooks(p.app.Name, p.tipSet.Digest, due, seen, owned)
		if err != nil {
			_, result, err := p.planFailed(err)
			return nil, false, result, err
		}
		if todo.Empty() {
			return seen, true, ctrl.Result{}, nil
		}
		for _, hook := range due {
			if p.hookRun(hook) == nil {
				p.record(hook, v1alpha1.HookRunning, "")
				p.event(corev1.EventTypeNormal, "HookStarted", "%s hook %s of %s", hook.When, hook.Ref, p.tip)
			}
		}
		if err := p.writeStatus(ctx); err != nil {
			return nil, false, ctrl.Result{}, err
		}
		if done, result, err := p.carryOut(ctx, todo); !done {
			return nil, false, result, err
		}
	}
	p.notReady(v1alpha1.ReasonApplyFailed, "hooks of %s do not stay as they are created: is annotation %s taken off?", p.tip, manifests.AnnotationHookSet)
	return nil, false, ctrl.Result{RequeueAfter: 10 * p.retry()}, nil
}

// observeHooks looks at the Jobs of hooks, and has them watched.
func (p *pass) observeHooks(ctx context.Context, hooks []plan.Hook, owned plan.Inventory) plan.Observed {
	intended := map[manifests.Ref]plan.Entry{}
	var refs []manifests.Ref
	for _, hook := range hooks {
		refs = append(refs, hook.Ref)
		if _, listed := owned[hook.Ref]; !listed {
			intended[hook.Ref] = plan.Entry{Version: hook.Object.GroupVersionKind().Version}
		}
	}
	p.r.Cluster.Track(p.app.Name, owned.Merge(intended, nil))
	return p.r.Cluster.Observe(ctx, refs)
}

// settle records which hooks have ended. It returns those to wait for, and the first that failed.
func (p *pass) settle(ctx context.Context, hooks []plan.Hook, seen plan.Observed) (waits []plan.Hook, failed *overall, err error) {
	var ended []plan.Hook
	for _, hook := range hooks {
		health := Health{}
		if live := seen[hook.Ref]; live.State == plan.Present && live.HookSet == string(p.tipSet.Digest) {
			health = p.r.Judge.Health(hook.Ref)
		}
		switch health.State {
		case HealthHealthy:
			p.record(hook, v1alpha1.HookSucceeded, "")
			p.event(corev1.EventTypeNormal, "HookSucceeded", "%s hook %s of %s", hook.When, hook.Ref, p.tip)
			ended = append(ended, hook)
		case HealthFailed:
			message := fmt.Sprintf("%s hook failed: %s%s", hook.When, health.Message, p.logOf(ctx, hook, seen[hook.Ref].UID))
			p.record(hook, v1alpha1.HookFailed, message)
			p.event(corev1.EventTypeWarning, "HookFailed", "%s: %s", hook.Ref, message)
			ended = append(ended, hook)
			if failed == nil {
				failed = &overall{state: HealthFailed, message: hook.Ref.String() + ": " + message, failed: hook.Ref}
			}
		default:
			waits = append(waits, hook)
		}
	}
	if len(ended) == 0 || failed != nil { // a failure is written with its mark
		return waits, failed, nil
	}
	if err := p.writeStatus(ctx); err != nil {
		return nil, nil, err
	}
	return waits, nil, p.letExpire(ctx, ended)
}

// letExpire gives finished hooks back the time after which they are removed: how they ended is on record.
func (p *pass) letExpire(ctx context.Context, hooks []plan.Hook) error {
	for _, hook := range hooks {
		if !hook.Expires() {
			continue
		}
		todo, err := plan.KeepHook(p.app.Name, p.tipSet.Digest, hook, p.owned())
		if err != nil {
			return err
		}
		if _, _, err := p.carryOut(ctx, todo); err != nil {
			return err
		}
	}
	return nil
}

// onFailure runs the hooks for a Set that has failed, without waiting for them. What goes wrong with them is told and no more.
func (p *pass) onFailure(ctx context.Context) error {
	due := slices.DeleteFunc(slices.Clone(p.hooks), func(h plan.Hook) bool {
		run := p.hookRun(h)
		return h.When != manifests.HookOnFailure || run != nil && run.Outcome != v1alpha1.HookRunning
	})
	if len(due) == 0 {
		return nil
	}
	seen, ok, _, err := p.startHooks(ctx, due)
	if err != nil || !ok {
		return err
	}
	_, _, err = p.settle(ctx, due, seen)
	return errors.Join(err, p.writeStatus(ctx))
}

// settlePast records how on-failure hooks ended that ran on while Git went back: nobody waited for them.
func (p *pass) settlePast(ctx context.Context) {
	for i := range p.app.Status.Hooks {
		run := &p.app.Status.Hooks[i]
		if run.Hook != manifests.HookOnFailure || run.Outcome != v1alpha1.HookRunning || run.SetDigest == string(p.tipSet.Digest) {
			continue
		}
		ref := manifests.Ref{Group: "batch", Kind: "Job", Namespace: run.Namespace, Name: run.Name}
		live := p.r.Cluster.Observe(ctx, []manifests.Ref{ref})[ref]
		health := p.r.Judge.Health(ref)
		switch {
		case live.State == plan.Absent || live.State == plan.Present && live.HookSet != run.SetDigest:
			run.Outcome, run.Message = v1alpha1.HookFailed, "it is gone, and nobody saw how it ended"
		case live.State == plan.Present && health.State == HealthHealthy:
			run.Outcome = v1alpha1.HookSucceeded
		case live.State == plan.Present && health.State == HealthFailed:
			run.Outcome, run.Message = v1alpha1.HookFailed, health.Message
			p.event(corev1.EventTypeWarning, "HookFailed", "%s: %s hook failed: %s", ref, run.Hook, health.Message)
		}
	}
}

// runningHooks adds the hooks that have not ended to inUse: a revert may take an on-failure hook out of Git while it runs.
func (p *pass) runningHooks(inUse map[manifests.Ref]string) {
	for _, run := range p.app.Status.Hooks {
		ref := manifests.Ref{Group: "batch", Kind: "Job", Namespace: run.Namespace, Name: run.Name}
		if run.Hook == manifests.HookOnFailure && run.Outcome == v1alpha1.HookRunning {
			inUse[ref] = "the on-failure hook has not ended"
		}
	}
}

func (p *pass) isHook(ref manifests.Ref) bool {
	if slices.ContainsFunc(p.hooks, func(h plan.Hook) bool { return h.Ref == ref }) {
		return true
	}
	return slices.ContainsFunc(p.app.Status.Hooks, func(run v1alpha1.HookRun) bool {
		return ref.Group == "batch" && ref.Kind == "Job" && run.Namespace == ref.Namespace && run.Name == ref.Name
	}) && p.tipSet.Find(ref) == nil
}

// hookRun is what is on record about a hook of the tip's Set.
func (p *pass) hookRun(hook plan.Hook) *v1alpha1.HookRun {
	for i := range p.app.Status.Hooks {
		run := &p.app.Status.Hooks[i]
		if run.SetDigest == string(p.tipSet.Digest) && run.Namespace == hook.Ref.Namespace && run.Name == hook.Ref.Name {
			return run
		}
	}
	return nil
}

// Bounds of what is on record.
const (
	hookSets = historyLength
	hookRuns = 100
)

// record notes what became of a hook, and forgets Sets that are long gone.
func (p *pass) record(hook plan.Hook, outcome, message string) {
	if run := p.hookRun(hook); run != nil {
		run.Outcome, run.Message = outcome, message
		return
	}
	p.app.Status.Hooks = append([]v1alpha1.HookRun{{
		SetDigest: string(p.tipSet.Digest), Hook: hook.When, Namespace: hook.Ref.Namespace, Name: hook.Ref.Name,
		Outcome: outcome, Message: message, At: metav1.Time{Time: p.r.Now()},
	}}, p.app.Status.Hooks...)
	var sets []string
	for i, run := range p.app.Status.Hooks {
		if !slices.Contains(sets, run.SetDigest) {
			sets = append(sets, run.SetDigest)
		}
		if len(sets) > hookSets || i >= hookRuns {
			p.app.Status.Hooks = p.app.Status.Hooks[:i]
			return
		}
	}
}

// Bounds of a log in a message.
const (
	tailLines  = 10
	tailLength = 1000 // bytes
	tailWait   = 5 * time.Second
)

// logOf is the end of the log of a failed hook, for a message; empty where there is none.
func (p *pass) logOf(ctx context.Context, hook plan.Hook, uid string) string {
	ctx, cancel := context.WithTimeout(ctx, tailWait)
	defer cancel()
	secrets, err := p.secretsOf(ctx, hook)
	if err != nil {
		return "; its log is not shown, because what is secret in it is not known: " + err.Error()
	}
	text, err := p.r.Logs.Tail(ctx, hook.Ref, uid)
	if err != nil {
		return "; its log cannot be read: " + err.Error()
	}
	text = policy.NewMask(secrets).Clean(text)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	text = strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
	if len(text) > tailLength {
		text = "..." + strings.ToValidUTF8(text[len(text)-tailLength:], "")
	}
	if text == "" {
		return ""
	}
	return "; its log ends with:\n" + text
}

// secretsOf are the values of the Set's Secrets, and of those that the hook can read.
func (p *pass) secretsOf(ctx context.Context, hook plan.Hook) ([]policy.Secret, error) {
	var values []policy.Secret
	for _, object := range p.tipSet.Objects {
		values = append(values, manifests.SecretValues(object)...)
	}
	for _, ref := range hook.Secrets() {
		var secret corev1.Secret
		err := p.r.Secrets.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, &secret)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		for _, value := range secret.Data {
			values = append(values, policy.NewSecret(string(value)))
		}
	}
	return values, nil
}
