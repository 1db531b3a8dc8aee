package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/runtime/conditions"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// apply brings the cluster to set. It reports false when that is not done yet;
// the conditions then say why.
func (p *pass) apply(ctx context.Context, set manifests.Set, revision gitsource.Revision) (bool, ctrl.Result, error) {
	todo, ok, result, err := p.prepare(ctx, set, revision)
	if !ok {
		return false, result, err
	}
	if p.contend(ctx, todo) {
		if todo, ok, result, err = p.prepare(ctx, set, revision); !ok {
			return false, result, err
		}
	}
	p.vanished = todo.Vanished
	p.reportDrift(ctx, todo)
	done, result, err := p.carryOut(ctx, todo)
	if done {
		p.tellOwners(p.handing)
	}
	return done, result, err
}

// prepare plans the way to set. It reports false when nothing may be done; the conditions then say why.
func (p *pass) prepare(ctx context.Context, set manifests.Set, revision gitsource.Revision) (plan.Plan, bool, ctrl.Result, error) {
	want, err := p.want(ctx, set, revision)
	if err != nil {
		p.stalled(v1alpha1.ReasonRenderFailed, "%s", err)
		return plan.Plan{}, false, ctrl.Result{}, nil
	}
	owned, err := p.loadInventory(ctx)
	if err != nil {
		return plan.Plan{}, false, ctrl.Result{}, err
	}
	todo, err := p.plan(ctx, want, owned)
	if err != nil {
		_, result, err := p.planFailed(err)
		return plan.Plan{}, false, result, err
	}
	if todo.Held != "" {
		p.notReady(v1alpha1.ReasonPruneHeld, "%s", todo.Held)
		return plan.Plan{}, false, ctrl.Result{}, nil
	}
	return todo, true, ctrl.Result{}, nil
}

// carryOut applies a plan. What it brings in is in the Inventory before, and what it did afterwards, also when it failed.
func (p *pass) carryOut(ctx context.Context, todo plan.Plan) (bool, ctrl.Result, error) {
	result := Applied{}
	var applyErr error
	if !todo.Empty() {
		if err := p.saveInventory(ctx, todo.Intended()); err != nil {
			return false, ctrl.Result{}, err
		}
		p.changed = true
		p.r.Failpoint(FailpointApply)
		result, applyErr = p.r.Cluster.Apply(ctx, todo)
		p.healed(result.Changes)
	}
	inventory := todo.Inventory.Merge(result.Entries, result.Gone)
	if err := p.saveInventory(ctx, inventory); err != nil {
		return false, ctrl.Result{}, errors.Join(applyErr, err)
	}
	p.r.Cluster.Track(p.app.Name, inventory)
	p.app.Status.Objects = len(inventory)
	if applyErr != nil {
		if ctx.Err() != nil {
			return false, ctrl.Result{}, ctx.Err()
		}
		p.event(corev1.EventTypeWarning, v1alpha1.ReasonApplyFailed, "%s", applyErr)
		p.notReady(v1alpha1.ReasonApplyFailed, "%s", applyErr)
		if p.app.Spec.RetryInterval != nil {
			return false, ctrl.Result{RequeueAfter: p.retry()}, nil
		}
		return false, ctrl.Result{}, applyErr
	}
	if len(todo.Waiting) > 0 {
		p.progressing(v1alpha1.ReasonProgressing, "%s is being deleted; it is created again when it is gone", todo.Waiting[0])
		return false, ctrl.Result{RequeueAfter: p.retry()}, nil
	}
	return true, ctrl.Result{}, nil
}

// want is set without what Rollouts move, with a stored Bundle for each Rollout and the Rollouts pointing at them.
func (p *pass) want(ctx context.Context, set manifests.Set, revision gitsource.Revision) (desired, error) {
	rest, hooks, err := plan.CutHooks(set)
	if err != nil {
		return desired{}, err
	}
	bundles, bundled, err := plan.Cut(rest)
	if err != nil {
		return desired{}, err
	}
	if len(bundles) > 0 && p.app.Spec.ServiceAccountName != "" {
		return desired{}, fmt.Errorf("%s: an Application with spec.serviceAccountName cannot have a Rollout: it is moved with the rights of the agent", bundles[0].Rollout)
	}
	want := desired{bundled: bundled, inUse: map[manifests.Ref]string{}, hooks: map[manifests.Ref]bool{}}
	for _, hook := range slices.Concat(hooks, p.hooks) { // also those of a failed Set: people want to see what they did
		want.hooks[hook.Ref] = true
	}
	objects := rest.Objects
	for _, bundle := range bundles {
		objects, err = p.pointAt(ctx, objects, bundle, set.Digest, revision, want.inUse)
		if err != nil {
			return desired{}, err
		}
	}
	held := make([]*unstructured.Unstructured, len(objects))
	for i, object := range objects {
		held[i] = WithFinalizer(object, p.app.Namespace)
	}
	want.set, err = manifests.NewSet(held)
	if err != nil {
		return desired{}, err
	}
	want.set.Digest = set.Digest // approvals of a prune name the Set that people see
	return want, nil
}

// desired is what an apply works towards.
type desired struct {
	set     manifests.Set
	bundled map[manifests.Ref]bool
	inUse   map[manifests.Ref]string
	hooks   map[manifests.Ref]bool
}

// plan observes and computes. Objects that only a Rollout's stable version still uses are kept.
func (p *pass) plan(ctx context.Context, want desired, owned plan.Inventory) (plan.Plan, error) {
	refs := map[manifests.Ref]bool{}
	tracked := owned.Merge(nil, nil)
	if tracked == nil {
		tracked = plan.Inventory{}
	}
	for _, ref := range owned.Refs() {
		refs[ref] = true
		if owned[ref].Bundled && !want.bundled[ref] && want.unsettled() {
			want.inUse[ref] = "the stable version may still use it"
		}
	}
	for _, object := range want.set.Objects {
		ref := manifests.RefOf(object)
		refs[ref] = true
		if _, found := tracked[ref]; !found {
			tracked[ref] = plan.Entry{Version: object.GroupVersionKind().Version, Bundled: want.bundled[ref]}
		}
	}
	p.runningHooks(want.inUse)
	p.r.Cluster.Track(p.app.Name, tracked)
	list := make([]manifests.Ref, 0, len(refs))
	for ref := range refs {
		list = append(list, ref)
	}
	in := plan.In{
		Application: p.app.Name,
		Want:        want.set,
		Bundled:     want.bundled,
		Hooks:       want.hooks,
		Ignore:      p.app.Spec.Ignore,
		Contested:   p.contested(),
		Seen:        p.r.Cluster.Observe(ctx, list),
		Owned:       owned,
		InUse:       want.inUse,
		Weight:      p.weights(ctx, owned),
		Options: plan.Options{
			Prune:    p.app.Spec.Prune == nil || *p.app.Spec.Prune,
			Report:   p.app.Spec.Drift == v1alpha1.DriftReport,
			Approved: p.app.Annotations[manifests.AnnotationApprovePrune] == string(want.set.Digest),
		},
	}
	if err := p.handovers(ctx, &in); err != nil {
		return plan.Plan{}, err
	}
	p.handing = in
	return plan.Compute(in)
}

func (d desired) unsettled() bool { return len(d.inUse) > 0 }

// weights counts a pruned Application with all that it owns, and an ApplicationSet with all Applications that it made.
func (p *pass) weights(ctx context.Context, owned plan.Inventory) map[manifests.Ref]int {
	weights := map[manifests.Ref]int{}
	for ref := range owned {
		if ref.Group == v1alpha1.Group && ref.Kind == "ApplicationSet" {
			weights[ref] = p.weightOfSet(ctx, ref)
		}
		if ref.Group != v1alpha1.Group || ref.Kind != "Application" {
			continue
		}
		var app v1alpha1.Application
		if p.r.Client.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, &app) == nil {
			weights[ref] = max(1, app.Status.Objects)
		}
	}
	return weights
}

func (p *pass) weightOfSet(ctx context.Context, ref manifests.Ref) int {
	var made v1alpha1.ApplicationList
	weight := 1
	if p.r.Client.List(ctx, &made, client.InNamespace(ref.Namespace), client.MatchingLabels{manifests.LabelApplicationSet: ref.Name}) == nil {
		for i := range made.Items {
			weight += max(1, made.Items[i].Status.Objects)
		}
	}
	return weight
}

func (p *pass) planFailed(err error) (bool, ctrl.Result, error) {
	var conflict *plan.ConflictError
	switch {
	case errors.Is(err, plan.ErrEmpty):
		p.stalled(v1alpha1.ReasonEmptyRender, "path %s: %s", p.app.Spec.Path, err)
		return false, ctrl.Result{}, nil
	case errors.Is(err, plan.ErrUnknown):
		p.notReady(v1alpha1.ReasonStateUnknown, "%s; nothing is changed until it is known", err)
		return false, ctrl.Result{RequeueAfter: p.retry()}, nil
	case errors.As(err, &conflict):
		p.stalled(v1alpha1.ReasonOwnedByAnother, "%s", err)
		return false, ctrl.Result{RequeueAfter: 10 * p.retry()}, nil
	}
	p.stalled(v1alpha1.ReasonRenderFailed, "%s", err)
	return false, ctrl.Result{}, nil
}

// reportDrift tells, before it is put right, who changed what.
func (p *pass) reportDrift(ctx context.Context, todo plan.Plan) {
	p.app.Status.Drift = nil
	contested := p.contested()
	for _, action := range todo.Drifted {
		if contested[action.Ref] {
			continue // told by tellContested, without asking the API server each time
		}
		what := action.Ref.String() + ": " + action.Reason
		if action.Object != nil {
			what = action.Ref.String() + ": " + p.r.Judge.Explain(ctx, action.Object)
		}
		p.app.Status.Drift = append(p.app.Status.Drift, what)
	}
	if len(p.app.Status.Drift) > 0 {
		conditions.MarkTrue(p.app, v1alpha1.ConditionDrifted, v1alpha1.ReasonDrift, "%s", strings.Join(p.app.Status.Drift, "; "))
	} else {
		conditions.Delete(p.app, v1alpha1.ConditionDrifted)
	}
	p.tellContested()
	for _, action := range todo.Actions() {
		if !action.Drift || action.Object == nil {
			continue
		}
		p.event(corev1.EventTypeWarning, v1alpha1.ReasonDrift, "%s: %s; healing (%s)", action.Ref, p.r.Judge.Explain(ctx, action.Object), action.Reason)
	}
}
