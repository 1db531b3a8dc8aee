package reconciler

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// An object belongs to the Application that its label names. It changes hands when the Set of the one has it no more and
// that of the other has it: the old owner leaves it alone, the new one takes it over, and nobody deletes it in between,
// in whatever order they come to it. While both want it the owner keeps it, and the other one says so.

// handovers finds, for a plan, what others let go of and what others take over. It costs nothing where all that is wanted
// is unclaimed and nothing left Git.
func (p *pass) handovers(ctx context.Context, in *plan.In) error {
	foreign, left := false, false
	for _, object := range in.Want.Objects {
		label := in.Seen[manifests.RefOf(object)].Application
		foreign = foreign || label != "" && label != p.app.Name
	}
	for ref := range in.Owned {
		left = left || leftGit(in, ref)
	}
	if !foreign && !left {
		return nil
	}
	apps, err := p.siblings(ctx)
	if err != nil {
		return err
	}
	sets := map[string]*manifests.Set{} // nil where nobody can tell
	wants := func(name string, ref manifests.Ref) (wanted, known bool) {
		app := apps[name]
		if app == nil || !app.DeletionTimestamp.IsZero() {
			return false, true
		}
		set, asked := sets[name]
		if !asked {
			if found, err := p.wantedBy(ctx, app); err == nil {
				set = &found
			}
			sets[name] = set
		}
		if set == nil {
			return false, false
		}
		return set.Find(ref) != nil, true
	}
	in.Yielded = map[manifests.Ref]bool{}
	for _, object := range in.Want.Objects {
		ref := manifests.RefOf(object)
		if owner := in.Seen[ref].Application; owner != "" && owner != p.app.Name {
			wanted, known := wants(owner, ref)
			in.Yielded[ref] = known && !wanted
		}
	}
	in.Claimed = claims(p.app.Name, apps, *in, wants)
	return ctx.Err()
}

// leftGit says that an owned object stood in Git and does not any more. The Bundle that a Rollout still comes from never did:
// no other Application can want it, and to ask them all while versions come in would cost more than the rollouts.
func leftGit(in *plan.In, ref manifests.Ref) bool {
	return in.Want.Find(ref) == nil && !in.Hooks[ref] && !in.Seen[ref].Stored
}

// claims finds who wants what left Git here. An Application that does not render claims nothing: it must not keep all
// others from pruning.
func claims(self string, apps map[string]*v1alpha1.Application, in plan.In, wants func(string, manifests.Ref) (bool, bool)) map[manifests.Ref]string {
	var names []string
	for name := range apps {
		if name != self {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	claimed := map[manifests.Ref]string{}
	for ref := range in.Owned {
		if !leftGit(&in, ref) {
			continue
		}
		for _, name := range names {
			if wanted, _ := wants(name, ref); wanted {
				claimed[ref] = name
				break
			}
		}
	}
	return claimed
}

// wantedBy is the Set that another Application works towards: that of its tip, or where that has failed its last healthy one.
func (p *pass) wantedBy(ctx context.Context, app *v1alpha1.Application) (manifests.Set, error) {
	tip, snapshotOf, err := p.r.sourceOf(ctx, app)
	if err != nil {
		return manifests.Set{}, err
	}
	at := func(text string) (manifests.Set, error) {
		revision, err := gitsource.ParseRevision(text)
		if err != nil {
			return manifests.Set{}, err
		}
		tree, err := snapshotOf(ctx, revision.ID)
		if err != nil {
			return manifests.Set{}, err
		}
		return p.r.render(ctx, tree, app)
	}
	set, err := at(tip)
	if err != nil {
		return manifests.Set{}, fmt.Errorf("application %s: %w", app.Name, err)
	}
	marked := slices.ContainsFunc(app.Status.Marks, func(m v1alpha1.Mark) bool { return m.SetDigest == string(set.Digest) })
	if marked && app.Status.Healthy != nil {
		return at(app.Status.Healthy.Revision)
	}
	return set, nil
}

// sourceOf returns where the source of an Application stands, and what reads it.
func (r *ApplicationReconciler) sourceOf(ctx context.Context, app *v1alpha1.Application) (string, func(context.Context, gitsource.ObjectID) (gitsource.Snapshot, error), error) {
	if app.Spec.SourceRef.IsArtifact() {
		src, artifact, err := r.openArtifact(ctx, app)
		if err != nil {
			return "", nil, err
		}
		return src.ArtifactStatus().Revision, artifact.SnapshotOf, nil
	}
	var source v1alpha1.GitSource
	if err := r.Client.Get(ctx, types.NamespacedName{Namespace: app.Namespace, Name: app.Spec.SourceRef.Name}, &source); err != nil {
		return "", nil, err
	}
	repository, err := openSource(ctx, r.Secrets, r.Repositories, &source)
	if err != nil {
		return "", nil, err
	}
	return source.Status.Revision, repository.SnapshotOf, nil
}

// tellOwners wakes those from whom something was taken over, and those who are to take something over.
func (p *pass) tellOwners(in plan.In) {
	names := map[string]bool{}
	for ref, yielded := range in.Yielded {
		if yielded {
			names[in.Seen[ref].Application] = true
		}
	}
	for _, name := range in.Claimed {
		names[name] = true
	}
	for name := range names {
		p.r.Changed(types.NamespacedName{Namespace: p.app.Namespace, Name: name})
	}
}
