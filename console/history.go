package console

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/console/chain"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

// EnvironmentRepo is read for what happened in it.
type EnvironmentRepo interface {
	// Fetch returns where ref is; gitsource.ErrNotFound if it is not there.
	Fetch(ctx context.Context, ref string) (gitsource.Revision, error)
	SnapshotOf(ctx context.Context, commit gitsource.ObjectID) (gitsource.Snapshot, error)
	// Log returns the newest limit commits that from can reach, newest first.
	Log(ctx context.Context, from gitsource.ObjectID, limit int) ([]gitsource.Commit, error)
}

// History reads what chains are made of from the newest limit commits of a branch.
// clusters are the Applications that are known; the other apps of slipway.yaml are added to them.
func History(ctx context.Context, repo EnvironmentRepo, branch string, clusters []chain.Cluster, limit int) (chain.In, error) {
	tip, err := repo.Fetch(ctx, "refs/heads/"+branch)
	if err != nil {
		return chain.In{}, err
	}
	snapshot, err := repo.SnapshotOf(ctx, tip.ID)
	if err != nil {
		return chain.In{}, err
	}
	elsewhere, err := declared(snapshot.Tree, clusters)
	if err != nil {
		return chain.In{}, err
	}
	in := chain.In{Clusters: slices.Concat(clusters, elsewhere)}
	if in.Holds, err = holds(snapshot.Tree, in.Clusters); err != nil {
		return chain.In{}, err
	}
	in.Commits, err = history(ctx, repo, tip.ID, in.Clusters, limit)
	return in, err
}

func holds(tree gitsource.Tree, clusters []chain.Cluster) (map[string]environment.Holds, error) {
	all := map[string]environment.Holds{}
	for _, cluster := range clusters {
		if cluster.Spec.Environment == "" {
			continue
		}
		name := environment.HoldPath(cluster.Spec.Environment, cluster.App)
		content, err := tree.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if all[name], err = environment.ParseHolds(content); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return all, nil
}

// declared are the apps of slipway.yaml that no Application of this cluster is of.
func declared(tree gitsource.Tree, clusters []chain.Cluster) ([]chain.Cluster, error) {
	content, err := tree.ReadFile(environment.DeliveryPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	delivery, err := environment.Parse(content)
	if err != nil {
		return nil, err
	}
	var found []chain.Cluster
	for _, env := range delivery.Environments {
		head, rest, _ := strings.Cut(env.Path, "{app}")
		dir, prefix := path.Split(head)
		suffix, _, _ := strings.Cut(rest, "/")
		entries, err := tree.ReadDir(path.Clean(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, entry := range entries {
			app := strings.TrimSuffix(strings.TrimPrefix(entry.Name(), prefix), suffix)
			at, err := tree.Entry(env.AppPath(app))
			if err != nil {
				return nil, err
			}
			known := slices.ContainsFunc(clusters, func(c chain.Cluster) bool { return c.App == app && c.Spec.Environment == env.Name })
			if at.Kind == gitsource.Directory && !known {
				found = append(found, chain.Cluster{App: app, Spec: v1alpha1.ApplicationSpec{Environment: env.Name, Path: env.AppPath(app)}})
			}
		}
	}
	return found, nil
}

// history reads the first-parent line of the branch with what each commit changed.
func history(ctx context.Context, repo EnvironmentRepo, tip gitsource.ObjectID, clusters []chain.Cluster, limit int) ([]chain.Commit, error) {
	log, err := repo.Log(ctx, tip, limit)
	if err != nil {
		return nil, err
	}
	byID := map[gitsource.ObjectID]gitsource.Commit{}
	for _, commit := range log {
		byID[commit.ID] = commit
	}
	var commits []chain.Commit
	for at, found := byID[tip]; found; {
		commit := chain.Commit{Commit: at}
		parent := gitsource.ObjectID("")
		if len(at.Parents) > 0 {
			parent = at.Parents[0]
		}
		if _, known := byID[parent]; known {
			if commit.Changes, err = imageChanges(ctx, repo, parent, at.ID, clusters); err != nil {
				return nil, err
			}
		}
		if len(at.Parents) > 1 {
			commit.Merged = mergedBy(byID, at)
		}
		commits = append(commits, commit)
		at, found = byID[parent]
	}
	return commits, nil
}

// mergedBy walks the second parent's line until it meets the first one's.
func mergedBy(byID map[gitsource.ObjectID]gitsource.Commit, merge gitsource.Commit) []gitsource.Commit {
	main := map[gitsource.ObjectID]bool{}
	for at, found := byID[merge.Parents[0]]; found && len(main) <= len(byID); {
		main[at.ID] = true
		if len(at.Parents) == 0 {
			break
		}
		at, found = byID[at.Parents[0]]
	}
	var merged []gitsource.Commit
	for at, found := byID[merge.Parents[1]]; found && !main[at.ID]; {
		merged = append(merged, at)
		if len(at.Parents) == 0 {
			break
		}
		at, found = byID[at.Parents[0]]
	}
	return merged
}

func imageChanges(ctx context.Context, repo EnvironmentRepo, before, after gitsource.ObjectID, clusters []chain.Cluster) ([]chain.ImageChange, error) {
	old, err := repo.SnapshotOf(ctx, before)
	if err != nil {
		return nil, err
	}
	now, err := repo.SnapshotOf(ctx, after)
	if err != nil {
		return nil, err
	}
	var changes []chain.ImageChange
	for _, cluster := range clusters {
		if cluster.Spec.Environment == "" {
			continue
		}
		was, errWas := old.Tree.Entry(cluster.Spec.Path)
		is, errIs := now.Tree.Entry(cluster.Spec.Path)
		if err := errors.Join(errWas, errIs); err != nil {
			return nil, err
		}
		if was.ID == is.ID {
			continue
		}
		images := map[string]string{}
		for _, image := range imagesAt(old.Tree, cluster.Spec.Path) {
			images[image.Name] = image.Reference()
		}
		for _, image := range imagesAt(now.Tree, cluster.Spec.Path) {
			if reference := image.Reference(); images[image.Name] != reference {
				changes = append(changes, chain.ImageChange{App: cluster.App, Environment: cluster.Spec.Environment, Before: images[image.Name], After: reference})
			}
		}
	}
	return changes, nil
}

// imagesAt reads the image entries of a kustomization; none where there is no readable one.
func imagesAt(tree gitsource.Tree, dir string) []edit.Image {
	content, err := tree.ReadFile(path.Join(dir, "kustomization.yaml"))
	if err != nil {
		return nil
	}
	images, err := edit.Current(content)
	if err != nil {
		return nil
	}
	return images
}
