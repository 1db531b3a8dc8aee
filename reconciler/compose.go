package reconciler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// composing is one revert on its way.
type composing struct {
	trees    undo.Trees
	facts    undo.Facts
	evidence undo.Evidence
}

// trial is what a revert within one path would give.
type trial struct {
	facts undo.Facts
	tree  gitsource.ObjectID
	why   string // it does not bring back the last healthy Set; empty if it does
	after gitsource.Snapshot
	empty bool // Git is as it should be already, as far as this path goes
}

// compose computes what Git is to show. Its time is that of the verdict, so that
// composing again on the same tip gives the same commit.
func (p *pass) compose(ctx context.Context, mark *v1alpha1.Mark) (v1alpha1.RevertRequest, error) {
	c, err := p.composing(ctx, mark)
	if err != nil {
		return v1alpha1.RevertRequest{}, err
	}
	chosen, why, err := p.widen(ctx, c)
	var conflict *undo.ConflictError
	if errors.As(err, &conflict) {
		return v1alpha1.RevertRequest{}, fmt.Errorf("a person has to revert: %w", err)
	}
	if err != nil {
		return v1alpha1.RevertRequest{}, err
	}
	facts := chosen.facts
	c.evidence.Why = why
	return v1alpha1.RevertRequest{
		URL: p.source.Spec.URL, Branch: ruleOf(&p.source).BranchName(), Cluster: facts.Cluster, App: facts.App, Environment: facts.Environment,
		Path: facts.Path, Tip: string(p.tip.ID), Failed: string(facts.Failed), Healthy: string(facts.Healthy), Tree: string(chosen.tree),
		Message: undo.Message(facts, c.evidence), Holds: facts.Holds, Direct: why == "", Why: why, At: metav1.Time{Time: facts.At},
	}, nil
}

func (p *pass) composing(ctx context.Context, mark *v1alpha1.Mark) (composing, error) {
	failed, err := gitsource.ParseRevision(mark.Revision)
	if err != nil {
		return composing{}, err
	}
	healthy, err := gitsource.ParseRevision(p.app.Status.Healthy.Revision)
	if err != nil {
		return composing{}, err
	}
	failedTree, err := p.repository.SnapshotOf(ctx, failed.ID)
	if err != nil {
		return composing{}, fmt.Errorf("failed revision %s: %w", failed, err)
	}
	healthyTree, err := p.repository.SnapshotOf(ctx, healthy.ID)
	if err != nil {
		return composing{}, fmt.Errorf("healthy revision %s: %w", healthy, err)
	}
	own := path.Clean(p.app.Spec.Path)
	return composing{
		trees: undo.Trees{Failed: failedTree.Tree, Tip: p.tipTree.Tree, Healthy: healthyTree.Tree},
		facts: undo.Facts{
			Cluster: p.r.ClusterName, App: p.appName(), Environment: p.app.Spec.Environment, Path: own, Wide: own == ".",
			Failed: failed.ID, Healthy: healthy.ID, At: mark.Verdict.At.Time,
			Holds: undo.Left(imagesAt(failedTree, own), imagesAt(healthyTree, own)),
		},
		evidence: undo.Evidence{Verdict: mark.Verdict, Trace: p.traceID(ctx, failed.ID)},
	}, nil
}

// widen tries the Application's own path, then its parents, until the trial renders
// to the last healthy Set. Only what the own path alone can mend, and what changes
// nobody else, goes without a person: why is empty then.
func (p *pass) widen(ctx context.Context, c composing) (chosen trial, why string, err error) {
	own, err := p.try(ctx, c, c.facts)
	if err != nil {
		return trial{}, "", err
	}
	if own.why == "" {
		others, err := p.neighbours(ctx, own.after)
		switch {
		case err != nil:
			return trial{}, "", err
		case own.facts.Wide:
			why = "the application's path is the whole repository"
		case len(others) > 0:
			why = "it changes " + strings.Join(others, ", ") + " too"
		}
		return own, why, nil
	}
	for at := own.facts.Path; at != "."; {
		at = path.Dir(at)
		facts := c.facts
		facts.Path, facts.Wide = at, true
		wider, err := p.try(ctx, c, facts)
		if errors.As(err, new(*undo.ConflictError)) {
			break // in a wider path the conflict stays
		}
		if err != nil {
			return trial{}, "", err
		}
		if wider.why != "" {
			continue
		}
		others, err := p.neighbours(ctx, wider.after)
		if err != nil {
			return trial{}, "", err
		}
		effect := "no other application of this cluster changes by that"
		if len(others) > 0 {
			effect = "that changes " + strings.Join(others, ", ") + " too"
		}
		return wider, fmt.Sprintf("the failure came from files outside of %s, a shared base perhaps; what changed in %s goes back, and %s",
			own.facts.Path, within(at), effect), nil
	}
	if own.empty {
		return trial{}, "", fmt.Errorf("a person has to revert: %s, nor does a wider path", own.why)
	}
	return own, own.why, nil
}

func within(dir string) string {
	if dir == "." {
		return "the whole repository"
	}
	return dir
}

// try computes the revert that facts ask for on the tip, and renders what would result.
func (p *pass) try(ctx context.Context, c composing, facts undo.Facts) (trial, error) {
	composed, err := undo.ComposeRevert(c.trees, facts, c.evidence)
	if err != nil {
		return trial{}, err
	}
	result := trial{facts: facts, empty: len(composed.Changes) == 0}
	if result.tree, err = p.repository.WriteTree(p.tip.ID, composed.Changes); err != nil {
		return trial{}, err
	}
	id, err := p.repository.Commit(gitsource.NewCommit{
		Parents: []gitsource.ObjectID{p.tip.ID}, Tree: result.tree, Message: composed.Message, Author: composed.Author, Committer: composed.Author,
	})
	if err != nil {
		return trial{}, err
	}
	if result.after, err = p.repository.SnapshotOf(ctx, id); err != nil {
		return trial{}, err
	}
	set, err := p.r.render(ctx, result.after, p.app)
	switch {
	case ctx.Err() != nil:
		return trial{}, ctx.Err()
	case err != nil:
		result.why = "the reverted path does not render: " + err.Error()
	case string(set.Digest) != p.app.Status.Healthy.SetDigest:
		result.why = "taking back what changed in " + within(facts.Path) + " does not bring back the last healthy set"
	}
	return result, nil
}

// neighbours returns the other Applications of this source that after changes.
func (p *pass) neighbours(ctx context.Context, after gitsource.Snapshot) ([]string, error) {
	var apps v1alpha1.ApplicationList
	if err := p.r.Client.List(ctx, &apps, client.InNamespace(p.app.Namespace)); err != nil {
		return nil, err
	}
	var changed []string
	for i := range apps.Items {
		other := &apps.Items[i]
		if other.Name == p.app.Name || other.Spec.SourceRef != p.app.Spec.SourceRef {
			continue
		}
		now, errNow := p.r.render(ctx, p.tipTree, other)
		then, errThen := p.r.render(ctx, after, other)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if (errNow == nil) != (errThen == nil) || (errNow == nil && now.Digest != then.Digest) {
			changed = append(changed, "application "+other.Name)
		}
	}
	return changed, nil
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
