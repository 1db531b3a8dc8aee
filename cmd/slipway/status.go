package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// applicationStatus is one line of `slipway status`.
type applicationStatus struct {
	Name        string   `json:"name"`
	App         string   `json:"app"`
	Environment string   `json:"environment,omitempty"`
	Path        string   `json:"path"`
	Ready       bool     `json:"ready"`
	State       string   `json:"state"` // reason of the condition Ready
	Revision    string   `json:"revision,omitempty"`
	SetDigest   string   `json:"setDigest,omitempty"`
	Images      []string `json:"images,omitempty"`
	Objects     int      `json:"objects"`
	Failed      string   `json:"failed,omitempty"` // revision that is marked
	Rollout     string   `json:"rollout,omitempty"`
	Message     string   `json:"message"`
}

func statusCommand(g *globals) *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "status [APPLICATION...]",
		Short: "Say what is applied, and whether it is healthy",
		Example: `  slipway status
  slipway status shop-production -o json
  slipway status --check     # exit code 3 unless everything is ready`,
		RunE: func(cmd *cobra.Command, names []string) error {
			kube, _, err := g.kube()
			if err != nil {
				return err
			}
			lines, err := gatherStatus(cmd.Context(), kube, g.namespace, names)
			if err != nil {
				return err
			}
			if err := g.print(lines, func(w io.Writer) { printStatus(w, lines) }); err != nil {
				return err
			}
			for _, line := range lines {
				if check && !line.Ready {
					return errNo
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with 3 unless all of them are ready")
	return cmd
}

func gatherStatus(ctx context.Context, kube client.Client, namespace string, names []string) ([]applicationStatus, error) {
	var apps v1alpha1.ApplicationList
	if err := kube.List(ctx, &apps, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("applications of namespace %s: %w (is Slipway installed here? see 'slipway install --help')", namespace, err)
	}
	var rollouts v1alpha1.RolloutList
	if err := kube.List(ctx, &rollouts); err != nil {
		return nil, fmt.Errorf("rollouts: %w", err)
	}
	lines := []applicationStatus{}
	missing := map[string]bool{}
	for _, name := range names {
		missing[name] = true
	}
	for i := range apps.Items {
		app := &apps.Items[i]
		if len(names) > 0 && !missing[app.Name] {
			continue
		}
		delete(missing, app.Name)
		lines = append(lines, statusOf(app, rollouts.Items))
	}
	for name := range missing {
		return nil, fmt.Errorf("application %s: there is none in namespace %s", name, namespace)
	}
	return lines, nil
}

func statusOf(app *v1alpha1.Application, rollouts []v1alpha1.Rollout) applicationStatus {
	line := applicationStatus{
		Name: app.Name, App: app.Spec.App, Environment: app.Spec.Environment, Path: app.Spec.Path, Objects: app.Status.Objects,
		State: "Unknown", Message: "the agent has not looked at it yet",
	}
	if line.App == "" {
		line.App = app.Name
	}
	if ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		line.Ready, line.State, line.Message = ready.Status == metav1.ConditionTrue, ready.Reason, ready.Message
	}
	if applied := app.Status.Applied; applied != nil {
		line.Revision, line.SetDigest = applied.Revision, applied.SetDigest
	}
	for _, entry := range app.Status.History {
		if entry.SetDigest == line.SetDigest {
			line.Images = entry.Images
			break
		}
	}
	if len(app.Status.Marks) > 0 {
		line.Failed = app.Status.Marks[0].Revision
	}
	for _, rollout := range rollouts {
		if rollout.Labels[manifests.LabelApplication] == app.Name {
			line.Rollout = strings.TrimSpace(line.Rollout + " " + rollout.Name + ":" + string(rollout.Status.Phase))
		}
	}
	return line
}

func printStatus(w io.Writer, lines []applicationStatus) {
	rows := make([][]string, 0, len(lines))
	for _, line := range lines {
		commit := "-"
		if revision, err := gitsource.ParseRevision(line.Revision); err == nil {
			commit = revision.ID.Short()
		}
		images := make([]string, 0, len(line.Images))
		for _, image := range line.Images {
			images = append(images, brief(image))
		}
		rows = append(rows, []string{
			line.Name, or(line.Environment), line.State, commit, strconv.Itoa(line.Objects), or(line.Rollout), or(strings.Join(images, ",")),
		})
	}
	table(w, "APPLICATION ENVIRONMENT STATE APPLIED OBJECTS ROLLOUT IMAGES", rows)
	for _, line := range lines {
		if !line.Ready {
			fmt.Fprintf(w, "%s: %s\n", line.Name, line.Message)
		}
		if failed, err := gitsource.ParseRevision(line.Failed); err == nil {
			fmt.Fprintf(w, "%s: marked: what %s renders to failed and is not applied again\n", line.Name, failed.ID.Short())
		}
	}
}

func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
