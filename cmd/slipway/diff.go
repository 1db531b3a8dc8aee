package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// applicationDiff is what a commit would change in one Application.
type applicationDiff struct {
	Application string            `json:"application"`
	Revision    string            `json:"revision"`
	Differences []wire.Difference `json:"differences"`
	Error       string            `json:"error,omitempty"`
}

func diffCommand(g *globals) *cobra.Command {
	var ref string
	cmd := &cobra.Command{
		Use:   "diff [APPLICATION...]",
		Short: "Show what a branch or commit would change in the cluster",
		Long: `Render Applications at a branch or commit of the environment repo and ask the API server,
by a dry run, what applying them would change. Values of Secrets are masked. The exit
code is 3 if there are differences.`,
		Example: `  slipway diff                                    # the followed branch against what runs
  slipway diff shop-production --ref promote/production/shop`,
		RunE: func(cmd *cobra.Command, names []string) error {
			diffs, err := g.diff(cmd.Context(), ref, names)
			if err != nil {
				return err
			}
			if err := g.print(diffs, func(w io.Writer) { printDiffs(w, diffs) }); err != nil {
				return err
			}
			for _, diff := range diffs {
				if diff.Error != "" {
					return errors.New(diff.Application + ": " + diff.Error)
				}
			}
			if slices.ContainsFunc(diffs, func(d applicationDiff) bool { return len(d.Differences) > 0 }) {
				return errNo
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&ref, "ref", "", "branch or commit (default: the followed branch)")
	return cmd
}

func (g *globals) diff(ctx context.Context, ref string, names []string) (diffs []applicationDiff, err error) {
	kube, config, err := g.kube()
	if err != nil {
		return nil, err
	}
	repo, _, err := g.open(ctx)
	if err != nil {
		return nil, err
	}
	commit, err := g.resolve(ctx, repo, ref)
	if err != nil {
		return nil, err
	}
	snapshot, err := repo.SnapshotOf(ctx, commit)
	if err != nil {
		return nil, err
	}
	differ, err := wire.NewDiffer(config, kube, cacheDir())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, differ.Close()) }()
	var apps v1alpha1.ApplicationList
	if err := kube.List(ctx, &apps, client.InNamespace(g.namespace)); err != nil {
		return nil, fmt.Errorf("applications of namespace %s: %w", g.namespace, err)
	}
	diffs = []applicationDiff{}
	for i := range apps.Items {
		app := &apps.Items[i]
		if len(names) > 0 && !slices.Contains(names, app.Name) {
			continue
		}
		line := applicationDiff{Application: app.Name, Revision: string(commit)}
		if line.Differences, err = differ.Diff(ctx, snapshot, app); err != nil {
			line.Error = err.Error()
		}
		if line.Differences == nil {
			line.Differences = []wire.Difference{} // an empty list in JSON, not null
		}
		diffs = append(diffs, line)
	}
	if len(diffs) < len(names) {
		return nil, fmt.Errorf("applications %s: not all of them are in namespace %s", strings.Join(names, ", "), g.namespace)
	}
	return diffs, nil
}

// resolve finds the commit of a branch or an id.
func (g *globals) resolve(ctx context.Context, repo repository, ref string) (gitsource.ObjectID, error) {
	if ref == "" {
		ref = g.branch
	}
	revision, err := repo.Fetch(ctx, "refs/heads/"+ref)
	if errors.Is(err, gitsource.ErrNotFound) {
		if id, idErr := g.commitID(ctx, repo, ref); idErr == nil {
			return id, nil
		}
		return "", fmt.Errorf("%s: neither a branch nor a commit: %w", ref, err)
	}
	return revision.ID, err
}

func printDiffs(w io.Writer, diffs []applicationDiff) {
	for _, diff := range diffs {
		if diff.Error != "" || len(diff.Differences) == 0 {
			continue
		}
		fmt.Fprintf(w, "%s\n", diff.Application)
		for _, d := range diff.Differences {
			fmt.Fprintf(w, "  %s %s\n", map[string]string{"create": "+", "change": "~", "delete": "-"}[d.Verb], d.Object)
			for _, field := range d.Fields {
				fmt.Fprintf(w, "      %s\n", field)
			}
		}
	}
	if !slices.ContainsFunc(diffs, func(d applicationDiff) bool { return len(d.Differences) > 0 || d.Error != "" }) {
		fmt.Fprintln(w, "no differences")
	}
}
