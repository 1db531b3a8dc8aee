package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/signature"
	"github.com/slipway-cd/slipway/manifests/install"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

func installCommand(g *globals) *cobra.Command {
	var o install.Options
	var apply, dashboards bool
	var newKey string
	cmd := &cobra.Command{
		Use:   "install --cluster NAME --url REPO",
		Short: "Print or apply what a cluster needs to follow an environment repo",
		Long: `Print, or with --apply apply, what a cluster needs before its agent can start from Git:
custom resource definitions, the agent's rights, and the objects that say where Git is.
Installing a newer version over an older one is the same command.

With --new-key an agent that asks a server for reverts is enrolled: the private key is
written to a file, the public key is committed to the environment repo.`,
		Example: `  slipway install --cluster production-eu --url https://git.example/fleet.git > install.yaml
  slipway install --cluster dev --url https://git.example/fleet.git --apply --agent-user slipway-agent
  slipway install --cluster dev --url https://git.example/fleet.git --new-key agent.pem`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Namespace, o.Branch = g.namespace, g.branch
			objects, err := install.Manifests(o)
			if err != nil {
				return usageError{err}
			}
			if dashboards {
				more, err := install.Dashboards(o.Namespace)
				if err != nil {
					return usageError{err}
				}
				objects = append(objects, more...)
			}
			if newKey != "" && apply {
				return usage("--new-key and --apply are two steps: enrol the agent with one command, install with the next")
			}
			if newKey != "" {
				g.repo = o.URL
				return g.enrol(cmd.Context(), o.Cluster, newKey)
			}
			if apply {
				return g.apply(cmd.Context(), objects)
			}
			text, err := install.YAML(objects)
			if err != nil {
				return err
			}
			return g.print(objects, func(w io.Writer) { _, _ = w.Write(text) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Cluster, "cluster", "", "name of the cluster, as under clusters/ (required)")
	flags.StringVar(&o.URL, "url", "", "URL of the environment repo (required)")
	flags.StringVar(&o.Path, "path", "", "what the agent starts from (default clusters/CLUSTER)")
	flags.StringVar(&o.SecretName, "secret", "", "Secret with username and password for the repo")
	flags.StringVar(&o.AgentUser, "agent-user", "", "user of an agent that runs outside of the cluster")
	flags.StringVar(&o.AgentImage, "agent-image", "", "image of an agent that runs in the cluster")
	flags.IntVar(&o.Replicas, "replicas", 2, "agents in the cluster, of which one works and the others wait for it to die")
	flags.StringVar(&o.Server, "server", "", "URL of slipway-server, which then carries out reverts")
	flags.StringVar(&o.Prometheus, "prometheus", "", "URL of the Prometheus that Rollouts in the cluster measure with")
	flags.BoolVar(&apply, "apply", false, "apply instead of printing")
	flags.BoolVar(&dashboards, "dashboards", false, "with a Grafana dashboard (ConfigMap), alerts and scraping (PrometheusRule and PodMonitor of the Prometheus Operator)")
	flags.StringVar(&newKey, "new-key", "", "enrol the agent: write a new private key to this file, commit the public one")
	_, _ = cmd.MarkFlagRequired("cluster"), cmd.MarkFlagRequired("url")
	return cmd
}

// apply applies the objects in order.
func (g *globals) apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	kube, _, err := g.kube()
	if err != nil {
		return err
	}
	var done []string
	for _, object := range objects {
		name := object.GetKind() + " " + object.GetName()
		err := applyOne(ctx, kube, object)
		if meta.IsNoMatchError(err) {
			return fmt.Errorf("install %s: %w (the cluster has no definition of this kind; install what brings it first)", name, err)
		}
		if err != nil {
			return fmt.Errorf("install %s: %w", name, err)
		}
		done = append(done, name)
	}
	return g.print(map[string]any{"applied": done}, func(w io.Writer) {
		for _, name := range done {
			fmt.Fprintln(w, "applied", name)
		}
	})
}

// applyOne waits, at most 30 s, for a definition that was applied just before to be served.
func applyOne(ctx context.Context, kube client.Client, object *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := kube.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("slipway-install"), client.ForceOwnership)
		if !meta.IsNoMatchError(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// enrol makes a key for the agent of a cluster.
func (g *globals) enrol(ctx context.Context, cluster, file string) error {
	if err := environment.CheckName("cluster", cluster); err != nil {
		return usageError{err}
	}
	author, err := g.person(ctx)
	if err != nil {
		return err
	}
	repo, _, err := g.open(ctx)
	if err != nil {
		return err
	}
	key, content, err := wire.NewKey()
	if err != nil {
		return err
	}
	public := wire.PublicKey(key)
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("--new-key: %w", err)
	}
	if _, err := out.Write(content); err != nil {
		return fmt.Errorf("--new-key: %w", errors.Join(err, out.Close()))
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("--new-key: %w", err)
	}
	commit, err := enrolKey(ctx, repo, g.branch, cluster, public, author)
	if err != nil {
		return errors.Join(err, os.Remove(file))
	}
	signer, err := signature.AllowedSigner("slipway-agent-"+cluster, public)
	if err != nil {
		return err
	}
	return g.print(map[string]any{"key": file, "commit": commit, "allowedSigner": signer}, func(w io.Writer) {
		fmt.Fprintf(w, "private key: %s (for slipway-agent --key; keep it secret)\npublic key: %s, by commit %s\n", file, environment.AgentKeyPath(cluster), commit.Short())
		fmt.Fprintf(w, "the agent's own commits, by allowed_signers: %s\n", signer)
	})
}

// enrolKey commits the public key, again from the new tip after a lost race.
func enrolKey(ctx context.Context, repo repository, branch, cluster string, key ed25519.PublicKey, author gitsource.Person) (gitsource.ObjectID, error) {
	ref := "refs/heads/" + branch
	for {
		tip, err := repo.Fetch(ctx, ref)
		if err != nil {
			return "", err
		}
		tree, err := repo.WriteTree(tip.ID, []gitsource.Change{{Path: environment.AgentKeyPath(cluster), Content: undo.FormatPublicKey(key)}})
		if err != nil {
			return "", err
		}
		commit, err := repo.Commit(gitsource.NewCommit{
			Parents: []gitsource.ObjectID{tip.ID}, Tree: tree, Author: author, Committer: author,
			Message: "Enrol the agent of cluster " + cluster + "\n\nThe server carries out reverts that are signed with this key.\n",
		})
		if err != nil {
			return "", err
		}
		if err = repo.Push(ctx, ref, tip.ID, commit); !errors.Is(err, gitsource.ErrMoved) {
			return commit, err
		}
	}
}
