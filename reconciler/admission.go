package reconciler

import (
	"context"
	"fmt"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

// verifyAgain is how soon an image is looked at again that was refused, since a signature may still come, or that could
// not be verified while what uses it was applied already.
const verifyAgain = time.Minute

// admit asks rules and image policies about every image of set. It reports false when set must not be applied; the
// conditions then say why, and what was applied before keeps running.
func (p *pass) admit(ctx context.Context, set manifests.Set) (bool, ctrl.Result, error) {
	uses := p.uses(set)
	for _, use := range uses {
		if decision := p.r.Images.Evaluate(use); !decision.Allowed() {
			p.stalled(v1alpha1.ReasonRefused, "%s", decision)
			return false, ctrl.Result{}, nil
		}
	}
	coverages, err := p.coverages(ctx)
	if err != nil {
		return false, ctrl.Result{}, err
	}
	decision, unknown := p.verify(ctx, coverages, uses)
	switch {
	case !decision.Allowed():
		p.stalled(v1alpha1.ReasonRefused, "%s", decision)
		return false, ctrl.Result{RequeueAfter: verifyAgain}, nil
	case unknown == nil:
		return true, ctrl.Result{}, nil
	case ctx.Err() != nil:
		return false, ctrl.Result{}, ctx.Err()
	case p.app.Status.Applied != nil && p.app.Status.Applied.SetDigest == string(set.Digest):
		// It was admitted when it was applied. A registry that is down must not end the healing of what runs.
		return true, ctrl.Result{RequeueAfter: verifyAgain}, nil
	}
	p.notReady(v1alpha1.ReasonUnverified, "%s; nothing is changed until it is known", unknown)
	return false, ctrl.Result{RequeueAfter: p.retry()}, nil
}

func (p *pass) uses(set manifests.Set) []policy.ImageUse {
	var uses []policy.ImageUse
	for _, use := range set.Images() {
		uses = append(uses, policy.ImageUse{
			Image: use.Image, Object: use.Object.String(), RequireDigest: p.app.Spec.Images.RequireDigest,
		})
	}
	return uses
}

// verify returns the first refusal; where there is none, unknown says what nobody could tell, if anything.
func (p *pass) verify(ctx context.Context, coverages policy.Coverages, uses []policy.ImageUse) (refused policy.Decision, unknown error) {
	allowed := policy.Decision{Outcome: policy.Allow, Rule: "image policies"}
	asked := map[string]bool{}
	for _, use := range uses {
		if asked[use.Image] {
			continue
		}
		asked[use.Image] = true
		requirements, decision := coverages.Requirements(use.Image)
		if !decision.Allowed() {
			return by(use, decision), nil
		}
		for _, requirement := range requirements {
			decision, err := p.r.Verifier.Verify(ctx, use.Image, requirement)
			if err != nil && unknown == nil {
				unknown = fmt.Errorf("%s: %w", use.Object, err)
			}
			if err == nil && !decision.Allowed() {
				return by(use, decision), nil
			}
		}
	}
	return allowed, unknown
}

// by names the object that uses the image, and the image as it is written there.
func by(use policy.ImageUse, decision policy.Decision) policy.Decision {
	decision.Subject = use.Object + " image " + use.Image
	return decision
}

// coverages are the ImagePolicies beside the Application, from the cache.
func (p *pass) coverages(ctx context.Context) (policy.Coverages, error) {
	var policies v1alpha1.ImagePolicyList
	if err := p.r.Client.List(ctx, &policies, client.InNamespace(p.app.Namespace)); err != nil {
		return policy.Coverages{}, fmt.Errorf("application %s: image policies cannot be read: %w", p.app.Name, err)
	}
	return coveragesOf(policies.Items), nil
}

func coveragesOf(policies []v1alpha1.ImagePolicy) policy.Coverages {
	var all policy.Coverages
	for i := range policies {
		spec := &policies[i].Spec
		if policies[i].Name == v1alpha1.DefaultImagePolicy {
			all.RefuseUncovered = spec.Uncovered == v1alpha1.UncoveredDeny
		}
		requirement := policy.Requirement{Policy: policies[i].Name}
		for _, key := range spec.Keys {
			requirement.Keys = append(requirement.Keys, policy.Key{Name: key.Name, PEM: key.PEM})
		}
		if spec.RequireProvenance != nil {
			requirement.Provenance = &policy.Provenance{Sources: spec.RequireProvenance.Sources, Builders: spec.RequireProvenance.Builders}
		}
		all.List = append(all.List, policy.Coverage{Images: spec.Images, Requirement: requirement, Unsigned: spec.AllowUnsigned})
	}
	return all
}

// ofPolicy lists the Applications that an ImagePolicy may be about: all beside it.
func (r *ApplicationReconciler) ofPolicy(ctx context.Context, changed client.Object) []reconcile.Request {
	var apps v1alpha1.ApplicationList
	if err := r.Client.List(ctx, &apps, client.InNamespace(changed.GetNamespace())); err != nil {
		return nil
	}
	requests := make([]reconcile.Request, 0, len(apps.Items))
	for i := range apps.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&apps.Items[i])})
	}
	return requests
}

// sooner returns the result that comes back first.
func sooner(a, b ctrl.Result) ctrl.Result {
	if a.RequeueAfter == 0 || b.RequeueAfter > 0 && b.RequeueAfter < a.RequeueAfter {
		return b
	}
	return a
}
