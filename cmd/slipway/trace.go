package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kubeclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/console/chain"
	"github.com/slipway-cd/slipway/console/client"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func traceCommand(g *globals) *cobra.Command {
	var limit int
	var at serverFlags
	cmd := &cobra.Command{
		Use:   "trace SUBJECT",
		Short: "Follow one change through Git and the cluster, and back",
		Long: `Follow one change through Git and the cluster: from the source commit over the run that built
it, the image and its attestation to who promoted it, when it was applied, how it was
judged, and how it came back. SUBJECT is any link of that chain: a source commit (in
full), a run, an image digest, a trace id, a commit of the environment repo (a promotion,
a request or a revert), an app, an Application, or the Deployment or other workload of
one as NAMESPACE/NAME.

Without a server it tells no more of a run than promotions say, without a cluster what
Git knows.`,
		Example: `  slipway trace 1a2b3c4
  slipway trace sha256:...
  slipway trace shop/web
  slipway trace shop -o json --server https://slipway.example:8443`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			server, err := at.optional(g)
			if err != nil {
				return err
			}
			stages, err := g.trace(cmd.Context(), server, given[0], limit)
			if err != nil {
				return err
			}
			return g.print(stages, func(w io.Writer) { printTrace(w, stages) })
		},
	}
	at.add(cmd.Flags())
	cmd.Flags().IntVar(&limit, "limit", 500, "how many of the newest commits are searched")
	return cmd
}

// trace tells what Git, the cluster and, unless it is nil, the server know.
func (g *globals) trace(ctx context.Context, server *client.Client, subject string, limit int) ([]chain.Stage, error) {
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
	clusters, unseen := g.clusters(ctx) // what Git knows is told all the same
	subjects, err := g.workload(ctx, subject)
	if err != nil {
		return nil, err
	}
	in, err := console.History(ctx, repo, g.branch, clusters, limit)
	if err != nil {
		return nil, err
	}
	unknown := map[string]error{"cluster": unseen}
	var stages []chain.Stage
	for _, one := range subjects {
		if server != nil {
			unknown["server"] = console.WithRuns(ctx, &in, one, server)
		}
		if stages = chain.Of(in, one); len(stages) > 0 {
			break
		}
	}
	if len(stages) == 0 {
		nothing := fmt.Errorf("%s: nothing is known of it in the newest %d commits of %s and the status of the Applications", subject, limit, g.branch)
		return nil, errors.Join(nothing, unknown["cluster"], unknown["server"])
	}
	for _, what := range []string{"cluster", "server"} {
		if err := unknown[what]; err != nil {
			stages = append(stages, chain.Stage{Stage: "unknown", ID: what, At: time.Now(), Detail: "could not be read: " + err.Error()})
		}
	}
	return stages, nil
}

func (g *globals) clusters(ctx context.Context) ([]chain.Cluster, error) {
	kube, _, err := g.kube()
	if err != nil {
		return nil, err
	}
	var apps v1alpha1.ApplicationList
	if err := kube.List(ctx, &apps, kubeclient.InNamespace(g.namespace)); err != nil {
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

// workload returns what a Deployment or other workload that is named NAMESPACE/NAME stands for:
// the images that it runs, else its Application. Anything else stands for itself.
func (g *globals) workload(ctx context.Context, subject string) ([]string, error) {
	namespace, name, found := strings.Cut(subject, "/")
	if !found || strings.ContainsAny(name, "/@:") {
		return []string{subject}, nil
	}
	kube, _, err := g.kube()
	if err != nil {
		return nil, fmt.Errorf("workload %s: %w", subject, err)
	}
	deployment, set, daemons := &appsv1.Deployment{}, &appsv1.StatefulSet{}, &appsv1.DaemonSet{}
	for _, kind := range []struct {
		object kubeclient.Object
		pod    *corev1.PodSpec
	}{{deployment, &deployment.Spec.Template.Spec}, {set, &set.Spec.Template.Spec}, {daemons, &daemons.Spec.Template.Spec}} {
		err := kube.Get(ctx, kubeclient.ObjectKey{Namespace: namespace, Name: name}, kind.object)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("workload %s: %w", subject, err)
		}
		var stands []string
		for _, container := range kind.pod.Containers {
			if _, digest, pinned := strings.Cut(container.Image, "@"); pinned {
				stands = append(stands, digest)
			}
		}
		app := kind.object.GetLabels()[manifests.LabelApplication]
		if app == "" {
			return nil, fmt.Errorf("workload %s: it belongs to no Application (its label %s is missing)", subject, manifests.LabelApplication)
		}
		return append(stands, app), nil
	}
	return nil, fmt.Errorf("workload %s: there is no Deployment, StatefulSet or DaemonSet of that name in this cluster", subject)
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
