package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/install"
)

func bootstrapCommand(g *globals) *cobra.Command {
	var o install.Options
	var commitOnly bool
	cmd := &cobra.Command{
		Use:   "bootstrap --cluster NAME --url REPO --agent-image IMAGE",
		Short: "Commit what a cluster needs, and let its agent manage itself from Git",
		Long: `Commit what install would apply into the folder slipway-system of the cluster in the environment
repo, with your own credentials, and apply it once. From then on the agent manages itself: it
heals what is changed of its own, and a newer version comes in by a commit, which asking again
with another --agent-image makes.

A commit that removes the folder takes nothing away (see uninstall). A cluster that was lost is
built anew from Git: make the Secret that --secret names, then apply the folder, definitions
first.`,
		Example: `  slipway bootstrap --cluster production-eu --url https://git.example/fleet.git --secret fleet-login --agent-image registry.example/slipway-agent@sha256:...
  slipway bootstrap --cluster staging --url https://git.example/fleet.git --agent-image registry.example/slipway-agent:1.2 --commit-only`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Namespace, o.Branch = g.namespace, g.branch
			files, err := install.Bootstrap(o)
			if err != nil {
				return usageError{err}
			}
			g.repo = o.URL
			commit, changed, err := g.commitFiles(cmd.Context(), o, files)
			if err != nil {
				return err
			}
			if err := g.committed(files, commit, changed); err != nil || commitOnly {
				return err
			}
			var objects []*unstructured.Unstructured
			for _, name := range slices.Backward(slices.Sorted(maps.Keys(files))) { // definitions first
				found, err := install.Parse(files[name])
				if err != nil {
					return err
				}
				objects = append(objects, found...)
			}
			return g.apply(cmd.Context(), objects)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Cluster, "cluster", "", "name of the cluster, as under clusters/ (required)")
	flags.StringVar(&o.URL, "url", "", "URL of the environment repo, as the agent reaches it (required)")
	flags.StringVar(&o.Path, "path", "", "what the agent starts from (default clusters/CLUSTER)")
	flags.StringVar(&o.SecretName, "secret", "", "Secret with username and password for the repo; it is not committed")
	flags.StringVar(&o.AgentImage, "agent-image", "", "image of the agent (required)")
	flags.IntVar(&o.Replicas, "replicas", 2, "agents, of which one works and the others wait for it to die")
	flags.StringVar(&o.Server, "server", "", "URL of slipway-server, which then carries out reverts")
	flags.BoolVar(&commitOnly, "commit-only", false, "apply nothing; for a cluster that is managed so already, or not there yet")
	_, _, _ = cmd.MarkFlagRequired("cluster"), cmd.MarkFlagRequired("url"), cmd.MarkFlagRequired("agent-image")
	return cmd
}

func (g *globals) committed(files map[string][]byte, commit gitsource.ObjectID, changed bool) error {
	names := slices.Sorted(maps.Keys(files))
	return g.print(map[string]any{"commit": commit, "changed": changed, "files": names}, func(w io.Writer) {
		if !changed {
			fmt.Fprintf(w, "nothing to commit: %s says so already\n", commit.Short())
			return
		}
		fmt.Fprintf(w, "committed %s by %s\n", strings.Join(names, " and "), commit.Short())
	})
}

// commitFiles commits files to the followed branch, again from the new tip after a lost race. It reports whether there was
// anything to commit.
func (g *globals) commitFiles(ctx context.Context, o install.Options, files map[string][]byte) (gitsource.ObjectID, bool, error) {
	author, err := g.person(ctx)
	if err != nil {
		return "", false, err
	}
	repo, _, err := g.open(ctx)
	if err != nil {
		return "", false, err
	}
	ref := "refs/heads/" + g.branch
	for {
		tip, err := repo.Fetch(ctx, ref)
		if err != nil && !errors.Is(err, gitsource.ErrNotFound) { // an empty repository begins with this
			return "", false, err
		}
		made := gitsource.NewCommit{Author: author, Committer: author, Message: "Bootstrap cluster " + o.Cluster + "\n\nIts agent manages itself by what stands here.\n"}
		if tip.ID != "" {
			made.Parents = []gitsource.ObjectID{tip.ID}
			same, err := alike(ctx, repo, tip.ID, files)
			if err != nil || same {
				return tip.ID, false, err
			}
		}
		var changes []gitsource.Change
		for _, name := range slices.Sorted(maps.Keys(files)) {
			changes = append(changes, gitsource.Change{Path: name, Content: files[name]})
		}
		if made.Tree, err = repo.WriteTree(tip.ID, changes); err != nil {
			return "", false, err
		}
		commit, err := repo.Commit(made)
		if err != nil {
			return "", false, err
		}
		if err = repo.Push(ctx, ref, tip.ID, commit); !errors.Is(err, gitsource.ErrMoved) {
			return commit, true, err
		}
	}
}

// alike reports whether a commit holds these files. It refuses a folder whose kustomization leaves them out: the agent would
// never see them.
func alike(ctx context.Context, repo repository, commit gitsource.ObjectID, files map[string][]byte) (bool, error) {
	snapshot, err := repo.SnapshotOf(ctx, commit)
	if err != nil {
		return false, err
	}
	same := true
	for name, want := range files {
		got, err := snapshot.Tree.ReadFile(name)
		same = same && err == nil && string(got) == string(want)
		folder := path.Dir(path.Dir(name))
		for _, kustomization := range []string{"kustomization.yaml", "kustomization.yml", "Kustomization"} {
			file := path.Join(folder, kustomization)
			content, err := snapshot.Tree.ReadFile(file)
			if listed := install.Folder + "/" + path.Base(name); err == nil && !strings.Contains(string(content), listed) {
				return false, fmt.Errorf("%s: lists what is applied and leaves the agent out; commit %s among its resources first", file, listed)
			}
		}
	}
	return same, nil
}
