package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/console/chain"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

func traceCommand(g *globals) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "trace SUBJECT",
		Short: "Follow one change through Git and the cluster, and back",
		Long: `Follow one change through Git and the cluster: who promoted it, when it was applied, how
it was judged, and how it came back. SUBJECT is a commit of the environment repo (a
promotion, a request or a revert), an image digest, a trace id, an app or an Application.
Without a cluster it tells what Git knows.`,
		Example: `  slipway trace 1a2b3c4
  slipway trace sha256:...
  slipway trace shop -o json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			stages, err := g.trace(cmd.Context(), given[0], limit)
			if err != nil {
				return err
			}
			return g.print(stages, func(w io.Writer) { printTrace(w, stages) })
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 500, "how many of the newest commits are searched")
	return cmd
}

func (g *globals) trace(ctx context.Context, subject string, limit int) ([]chain.Stage, error) {
	repo, _, err := g.open(ctx)
	if err != nil {
		return nil, err
	}
	if id, err := g.commitID(ctx, repo, subject); err == nil {
		subject = string(id)
	}
	if _, digest, found := strings.Cut(subject, "@"); found {
		subject = digest
	}
	in := chain.In{Holds: map[string]environment.Holds{}}
	var unseen error // of the cluster; what Git knows is told all the same
	in.Clusters, unseen = g.clusters(ctx)
	tip, err := repo.Fetch(ctx, "refs/heads/"+g.branch)
	if err != nil {
		return nil, err
	}
	snapshot, err := repo.SnapshotOf(ctx, tip.ID)
	if err != nil {
		return nil, err
	}
	elsewhere, err := declared(snapshot.Tree, in.Clusters)
	if err != nil {
		return nil, err
	}
	in.Clusters = append(in.Clusters, elsewhere...)
	if in.Commits, err = history(ctx, repo, tip.ID, in.Clusters, limit); err != nil {
		return nil, err
	}
	for _, cluster := range in.Clusters {
		if cluster.Spec.Environment == "" {
			continue
		}
		name := environment.HoldPath(cluster.Spec.Environment, cluster.App)
		content, err := snapshot.Tree.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if in.Holds[name], err = environment.ParseHolds(content); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	stages := chain.Of(in, subject)
	if len(stages) == 0 {
		nothing := fmt.Errorf("%s: nothing is known of it in the newest %d commits of %s and the status of the Applications", subject, limit, g.branch)
		return nil, errors.Join(nothing, unseen)
	}
	if unseen != nil {
		stages = append(stages, chain.Stage{Stage: "unknown", ID: "cluster", At: time.Now(), Detail: "could not be read: " + unseen.Error()})
	}
	return stages, nil
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

func (g *globals) clusters(ctx context.Context) ([]chain.Cluster, error) {
	kube, _, err := g.kube()
	if err != nil {
		return nil, err
	}
	var apps v1alpha1.ApplicationList
	if err := kube.List(ctx, &apps, client.InNamespace(g.namespace)); err != nil {
		return nil, fmt.Errorf("applications of namespace %s: %w", g.namespace, err)
	}
	clusters := make([]chain.Cluster, 0, len(apps.Items))
	for _, app := range apps.Items {
		cluster := chain.Cluster{Name: app.Name, App: app.Spec.App, Spec: app.Spec, Status: app.Status}
		if cluster.App == "" {
			cluster.App = app.Name
		}
		clusters = append(clusters, cluster)
	}
	return clusters, nil
}

// history reads the first-parent line of the branch with what each commit changed.
func history(ctx context.Context, repo repository, tip gitsource.ObjectID, clusters []chain.Cluster, limit int) ([]chain.Commit, error) {
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

func imageChanges(ctx context.Context, repo repository, before, after gitsource.ObjectID, clusters []chain.Cluster) ([]chain.ImageChange, error) {
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

func printTrace(w io.Writer, stages []chain.Stage) {
	rows := make([][]string, 0, len(stages))
	for _, stage := range stages {
		rows = append(rows, []string{stage.Stage, clock(stage.At), shortID(stage.ID), stage.Detail})
	}
	table(w, "STAGE TIME ID DETAIL", rows)
}

// shortID keeps enough of an identifier to search for it.
func shortID(id string) string {
	if strings.Contains(id, "@") {
		return brief(id)
	}
	if algorithm, hex, found := strings.Cut(id, ":"); found && len(hex) > 12 {
		return algorithm + ":" + hex[:12]
	}
	if _, err := gitsource.ParseObjectID(id); err == nil {
		return id[:12]
	}
	return id
}
