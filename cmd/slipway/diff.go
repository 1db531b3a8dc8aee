package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// applicationDiff is what a commit would change in one Application.
type applicationDiff struct {
	Cluster     string            `json:"cluster,omitempty"` // context of the kubeconfig
	Application string            `json:"application"`
	Environment string            `json:"environment,omitempty"`
	Revision    string            `json:"revision"`
	SetDigest   string            `json:"setDigest,omitempty"`
	Differences []wire.Difference `json:"differences"`
	Unchanged   int               `json:"unchanged"`
	Held        string            `json:"held,omitempty"` // why the agent would wait for a person
	Error       string            `json:"error,omitempty"`
}

// diffFlags say what is compared with what.
type diffFlags struct {
	ref         string
	envs        []string
	path        string
	all         bool
	contexts    []string
	kubeconfigs []string
	clusters    bool

	host    string // kind of the Git host
	comment bool
	cluster string // its name in the comment
}

func diffCommand(g *globals) *cobra.Command {
	var f diffFlags
	cmd := &cobra.Command{
		Use:   "diff [APPLICATION...]",
		Short: "Show what a branch or commit would change in the cluster",
		Long: `Render Applications at a branch, pull request or commit of the environment repo and ask the
API server, by a dry run, what applying them would change: what is created (+), changed (~),
deleted (-), kept although it left Git (=) and refused (!), and whether the agent would wait
for a person before so many deletions. Values of Secrets are masked, also where they stand
in other objects of the same Application.

A branch or pull request is shown as it will be once it is merged into the followed branch.
With --ref and no APPLICATION only those are shown whose objects it touches. An Application
that the branch itself adds is shown as an object of the one that owns it.

With --comment the pull request of the ref says so, in place of what it said of the same
--cluster before, and its commit gets the status slipway/diff/CLUSTER: failed if something
could not be compared or would be refused.

The exit code is 3 if there are differences, and 1 if something could not be compared or
would be refused.`,
		Example: `  slipway diff                                    # the followed branch against what runs
  slipway diff shop-production --ref promote/production/shop
  slipway diff --ref refs/pull/12/head --env production
  slipway diff --ref new-base --path apps/shop --context eu --context us
  slipway diff --ref new-base --clusters          # all contexts named like a folder of clusters/
  slipway diff --ref refs/pull/12/head --host gitea --comment --cluster production-eu`,
		RunE: func(cmd *cobra.Command, names []string) error {
			f.host = cmp.Or(f.host, g.env("SLIPWAY_HOST"))
			if err := f.check(); err != nil {
				return err
			}
			diffs, err := g.diff(cmd.Context(), f, names)
			if err != nil {
				return err
			}
			if err := g.print(diffs, func(w io.Writer) { printDiffs(w, g.terminal, diffs) }); err != nil {
				return err
			}
			return diffVerdict(diffs)
		},
	}
	f.add(cmd)
	return cmd
}

func (f *diffFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.ref, "ref", "", "branch, refs/pull/NUMBER/head or commit (default: the followed branch)")
	flags.StringSliceVarP(&f.envs, "env", "e", nil, "only Applications of these environments")
	flags.StringVar(&f.path, "path", "", "only Applications whose path is this folder or below it")
	flags.BoolVar(&f.all, "all", false, "also Applications that the ref does not touch")
	flags.StringArrayVar(&f.contexts, "context", nil, "context of the kubeconfig; may be given for each of several clusters")
	flags.StringArrayVar(&f.kubeconfigs, "kubeconfig", nil, "kubeconfig file; may be given for each of several clusters (default: KUBECONFIG, then ~/.kube/config)")
	flags.BoolVar(&f.clusters, "clusters", false, "all contexts that are named like a folder of clusters/")
	flags.StringVar(&f.host, "host", "", "kind of the Git host, for --comment: gitea (default: SLIPWAY_HOST)")
	flags.BoolVar(&f.comment, "comment", false, "say it on the pull request of the ref, and at its commit")
	flags.StringVar(&f.cluster, "cluster", "", "name of the cluster in the comment, as its folder of clusters/")
}

// diffVerdict is the exit code: 1 for what could not be compared or would be refused, 3 for differences.
func diffVerdict(diffs []applicationDiff) error {
	var wrong []string
	found := false
	for _, diff := range diffs {
		if diff.Error != "" {
			wrong = append(wrong, diff.title()+": "+diff.Error)
		}
		refused := diff.count("refuse")
		if refused > 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %d of its objects would be refused", diff.title(), refused))
		}
		found = found || diff.differs()
	}
	switch {
	case len(wrong) > 0:
		return errors.New(strings.Join(wrong, "; "))
	case found:
		return errNo
	}
	return nil
}

// title names the Application, and its cluster where there are several.
func (d applicationDiff) title() string {
	if d.Cluster == "" {
		return d.Application
	}
	return d.Application + " in " + d.Cluster
}

func (d applicationDiff) count(verb string) int {
	n := 0
	for _, difference := range d.Differences {
		if difference.Verb == verb {
			n++
		}
	}
	return n
}

// differs says whether applying would do anything. What is kept is left as it is.
func (d applicationDiff) differs() bool { return len(d.Differences) > d.count("keep") }

// summary is one line about the Application.
func (d applicationDiff) summary() string {
	if d.Error != "" {
		return "could not be compared: " + d.Error
	}
	var parts []string
	for _, verb := range []string{"create", "change", "delete", "refuse", "keep"} {
		words := map[string]string{"refuse": "would be refused", "keep": "kept although it left Git"}
		if n := d.count(verb); n > 0 {
			word := words[verb]
			if word == "" {
				word = "to " + verb
			}
			parts = append(parts, fmt.Sprintf("%d %s", n, word))
		}
	}
	if len(parts) == 0 {
		return "no differences"
	}
	return strings.Join(parts, ", ")
}

func (g *globals) diff(ctx context.Context, f diffFlags, names []string) ([]applicationDiff, error) {
	if len(f.kubeconfigs) > 0 {
		g.kubeconfig = f.kubeconfigs[0] // which also knows the environment repo, if nothing else does
	}
	if len(f.contexts) > 0 {
		g.context = f.contexts[0]
	}
	repo, target, err := g.open(ctx)
	if err != nil {
		return nil, err
	}
	p, err := g.propose(ctx, repo, f.ref)
	if err != nil {
		return nil, err
	}
	diffs, err := g.compare(ctx, f, names, target, p)
	if f.comment {
		err = errors.Join(err, g.tell(ctx, f, target, p.head, diffs, err))
	}
	return diffs, err
}

// compare compares a proposal with each cluster that was asked for.
func (g *globals) compare(ctx context.Context, f diffFlags, names []string, target string, p proposal) ([]applicationDiff, error) {
	clusters, err := g.diffTargets(f, p)
	if err != nil {
		return nil, err
	}
	diffs := []applicationDiff{}
	found := map[string]bool{}
	for _, at := range clusters {
		d := &differing{g: g, f: f, names: names, repo: target, proposal: p, cluster: at, found: found}
		some, err := d.run(ctx)
		if err != nil {
			return nil, err
		}
		diffs = append(diffs, some...)
	}
	for _, name := range names {
		if !found[name] {
			return nil, fmt.Errorf("application %s: there is none in namespace %s", name, g.namespace)
		}
	}
	return diffs, nil
}

// differing is the comparison with one cluster.
type differing struct {
	g        *globals
	f        diffFlags
	names    []string
	repo     string // URL
	proposal proposal
	cluster  diffTarget
	found    map[string]bool // Applications, by name
}

func (d *differing) run(ctx context.Context) (diffs []applicationDiff, err error) {
	config, err := wire.KubeConfig(d.cluster.kubeconfig, d.cluster.context)
	if err != nil {
		return nil, err
	}
	kube, err := wire.KubeClient(config)
	if err != nil {
		return nil, err
	}
	apps, err := d.applications(ctx, kube)
	if err != nil {
		return nil, err
	}
	differ, err := wire.NewDiffer(config, kube, cacheDir())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, differ.Close()) }()
	for _, app := range apps {
		d.found[app.Name] = true
		if ref := app.Spec.SourceRef; ref.IsArtifact() { // there is no branch or commit that could be compared
			if len(d.names) > 0 {
				return nil, fmt.Errorf("application %s comes from the %s %s, not from Git: it cannot be compared", app.Name, ref.Kind, ref.Name)
			}
			continue
		}
		touched, err := d.touched(ctx, differ, app)
		if err != nil {
			return nil, err
		}
		if !touched {
			continue
		}
		line := applicationDiff{
			Cluster: d.cluster.name, Application: app.Name, Environment: app.Spec.Environment,
			Revision: string(d.proposal.head), Differences: []wire.Difference{}, // an empty list in JSON, not null
		}
		changes, err := differ.Diff(ctx, d.proposal.snapshot, app)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			line.Error = err.Error()
		}
		line.SetDigest, line.Unchanged, line.Held = string(changes.SetDigest), changes.Unchanged, changes.Held
		line.Differences = append(line.Differences, changes.Differences...)
		diffs = append(diffs, line)
	}
	return diffs, nil
}

// applications are those of this repository that were asked for.
func (d *differing) applications(ctx context.Context, kube client.Client) ([]*v1alpha1.Application, error) {
	var apps v1alpha1.ApplicationList
	if err := kube.List(ctx, &apps, client.InNamespace(d.g.namespace)); err != nil {
		return nil, fmt.Errorf("applications of namespace %s: %w", d.g.namespace, err)
	}
	var sources v1alpha1.GitSourceList
	if err := kube.List(ctx, &sources, client.InNamespace(d.g.namespace)); err != nil {
		return nil, fmt.Errorf("gitsources of namespace %s: %w", d.g.namespace, err)
	}
	here := map[string]bool{}
	for _, source := range sources.Items {
		if strings.TrimSuffix(source.Spec.URL, ".git") == strings.TrimSuffix(d.repo, ".git") {
			here[source.Name] = true
		}
	}
	var chosen []*v1alpha1.Application
	for i := range apps.Items {
		app := &apps.Items[i]
		// The same repository may go by another URL here than there.
		if len(here) > 0 && !here[app.Spec.SourceRef.Name] || len(d.names) > 0 && !slices.Contains(d.names, app.Name) {
			continue
		}
		if len(d.f.envs) > 0 && !slices.Contains(d.f.envs, app.Spec.Environment) {
			continue
		}
		if at := path.Clean(app.Spec.Path); d.f.path != "" && at != path.Clean(d.f.path) && !strings.HasPrefix(at, path.Clean(d.f.path)+"/") {
			continue
		}
		chosen = append(chosen, app)
	}
	return chosen, nil
}

// touched says whether the ref renders to something else than the followed branch does.
func (d *differing) touched(ctx context.Context, differ *wire.Differ, app *v1alpha1.Application) (bool, error) {
	if d.f.all || len(d.names) > 0 || d.proposal.head == d.proposal.tip.Revision.ID {
		return true, nil
	}
	before, errBefore := differ.Render(ctx, d.proposal.tip, app)
	after, errAfter := differ.Render(ctx, d.proposal.snapshot, app)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if errAfter != nil {
		return errBefore == nil || errBefore.Error() != errAfter.Error(), nil // broken before is not broken by it
	}
	return errBefore != nil || before.Digest != after.Digest, nil
}
