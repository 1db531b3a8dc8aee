package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/revert"
)

// proposal is a ref as it will be once it is merged into the followed branch.
type proposal struct {
	head     gitsource.ObjectID // where the ref is
	tip      gitsource.Snapshot // the followed branch
	snapshot gitsource.Snapshot // what merging makes of it
}

// propose reads a ref. A commit that the followed branch had already is taken as it stands: people ask what going back
// to it would change.
func (g *globals) propose(ctx context.Context, repo repository, ref string) (proposal, error) {
	tip, err := g.resolve(ctx, repo, "")
	if err != nil {
		return proposal{}, err
	}
	p := proposal{head: tip}
	if p.tip, err = repo.SnapshotOf(ctx, tip); err != nil {
		return proposal{}, err
	}
	if p.snapshot = p.tip; ref == "" {
		return p, nil
	}
	if p.head, err = g.resolve(ctx, repo, ref); err != nil {
		return proposal{}, err
	}
	if p.snapshot, err = repo.SnapshotOf(ctx, p.head); err != nil {
		return proposal{}, err
	}
	base, err := repo.MergeBase(ctx, tip, p.head)
	if errors.Is(err, gitsource.ErrNotFound) || base == tip || base == p.head {
		return p, nil
	}
	if err != nil {
		return proposal{}, err
	}
	p.snapshot, err = g.merged(ctx, repo, base, p)
	return p, err
}

// merged is the tip with what the ref changes, as a commit that only this machine's store has.
func (g *globals) merged(ctx context.Context, repo repository, base gitsource.ObjectID, p proposal) (gitsource.Snapshot, error) {
	before, err := repo.SnapshotOf(ctx, base)
	if err != nil {
		return gitsource.Snapshot{}, err
	}
	changes, conflicts, err := revert.Merge(before.Tree, p.tip.Tree, p.snapshot.Tree, revert.Within("."))
	if err != nil {
		return gitsource.Snapshot{}, err
	}
	if len(conflicts) > 0 {
		return gitsource.Snapshot{}, fmt.Errorf("%s: cannot be merged into %s: %s: %s (bring it up to date with %s first)",
			p.head.Short(), g.branch, conflicts[0].Path, conflicts[0].Why, g.branch)
	}
	tip, err := repo.CommitOf(ctx, p.tip.Revision.ID)
	if err != nil {
		return gitsource.Snapshot{}, err
	}
	tree, err := repo.WriteTree(tip.ID, changes)
	if err != nil {
		return gitsource.Snapshot{}, err
	}
	id, err := repo.Commit(gitsource.NewCommit{
		Parents: []gitsource.ObjectID{tip.ID, p.head}, Tree: tree, Message: "Trial merge\n", Author: tip.Committer, Committer: tip.Committer,
	})
	if err != nil {
		return gitsource.Snapshot{}, err
	}
	return repo.SnapshotOf(ctx, id)
}

// resolve finds the commit of a branch, a full ref or an id.
func (g *globals) resolve(ctx context.Context, repo repository, ref string) (gitsource.ObjectID, error) {
	if ref == "" {
		ref = g.branch
	}
	full := ref
	if !strings.HasPrefix(ref, "refs/") {
		full = "refs/heads/" + ref
	}
	revision, err := repo.Fetch(ctx, full)
	if errors.Is(err, gitsource.ErrNotFound) {
		if id, idErr := g.commitID(ctx, repo, ref); idErr == nil {
			return id, nil
		}
		return "", fmt.Errorf("%s: neither a branch nor a commit: %w", ref, err)
	}
	return revision.ID, err
}

// diffTarget is one cluster to compare with.
type diffTarget struct {
	name                string // of the context; empty for the one that nobody named
	kubeconfig, context string
}

// diffTargets are the clusters that were asked for.
func (g *globals) diffTargets(f diffFlags, p proposal) ([]diffTarget, error) {
	if len(f.kubeconfigs) > 1 && (len(f.contexts) > 0 || f.clusters) {
		return nil, usage("several --kubeconfig are several clusters, each with its current context: leave out --context and --clusters")
	}
	if f.clusters && len(f.contexts) > 0 {
		return nil, usage("--clusters stands for the contexts: leave out --context")
	}
	if len(f.kubeconfigs) > 1 {
		targets := make([]diffTarget, 0, len(f.kubeconfigs))
		for _, file := range f.kubeconfigs {
			targets = append(targets, diffTarget{name: file, kubeconfig: file})
		}
		return targets, nil
	}
	kubeconfig := ""
	if len(f.kubeconfigs) == 1 {
		kubeconfig = f.kubeconfigs[0]
	}
	contexts := f.contexts
	if f.clusters {
		var err error
		if contexts, err = clusterContexts(kubeconfig, p); err != nil {
			return nil, err
		}
	}
	if len(contexts) == 0 {
		return []diffTarget{{kubeconfig: kubeconfig}}, nil
	}
	targets := make([]diffTarget, 0, len(contexts))
	for _, name := range contexts {
		targets = append(targets, diffTarget{name: name, kubeconfig: kubeconfig, context: name})
	}
	return targets, nil
}

// clusterContexts are the contexts of a kubeconfig that have the name of a folder of clusters/.
func clusterContexts(kubeconfig string, p proposal) ([]string, error) {
	known, err := wire.KubeContexts(kubeconfig)
	if err != nil {
		return nil, err
	}
	entries, err := p.snapshot.Tree.ReadDir("clusters")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names, both []string
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		names = append(names, entry.Name())
		if slices.Contains(known, entry.Name()) {
			both = append(both, entry.Name())
		}
	}
	if len(both) == 0 {
		return nil, fmt.Errorf("--clusters: the environment repo has clusters %s, the kubeconfig contexts %s: none is in both (rename one with 'kubectl config rename-context')",
			or(strings.Join(names, ", ")), or(strings.Join(known, ", ")))
	}
	return both, nil
}
