package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func rolloutCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rollout",
		Short:   "Look at a Rollout, and let it go on",
		Example: "  slipway rollout status shop/web\n  slipway rollout promote shop/web\n  slipway rollout abort shop/web --reason \"INC-42\"",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(rolloutStatusCommand(g), rolloutPromoteCommand(g), rolloutPauseCommand(g), rolloutAbortCommand(g), rolloutRetryCommand(g))
	return cmd
}

// approvedStep is what rollout promote answers.
type approvedStep struct {
	Rollout string `json:"rollout"`
	Bundle  string `json:"bundle"`
	Step    int    `json:"step"`
	By      string `json:"by"`
}

func rolloutPromoteCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "promote NAMESPACE/NAME",
		Short: "Approve the step that a Rollout stands at",
		Long: `Approve the step that a Rollout stands at: a pause without an end, the switch of a blue-green
Rollout, or a pause because metrics said nothing, which are then measured anew. It is a yes to
this step of this version alone, and stands on the Rollout with your name.`,
		Example: "  slipway rollout promote shop/web",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx := cmd.Context()
			kube, rollout, err := g.rollout(ctx, given[0])
			if err != nil {
				return err
			}
			if order := statusOfRollout(rollout).Order; order != nil {
				return fmt.Errorf("rollout %s: %s has it %s until %s: %s (end that with 'slipway rollout retry %s')", given[0], order.By, orderedAs(order.Abort), clock(order.Until), order.Reason, given[0])
			}
			course := rollout.Status.Course
			if course == nil || course.Canary == nil || rollout.Status.Target == nil || course.Canary.Digest != rollout.Status.Target.Digest {
				return fmt.Errorf("rollout %s: it is %s and waits for nobody (see 'slipway rollout status %s')", given[0], or(string(rollout.Status.Phase)), given[0])
			}
			if err := approve(ctx, kube, rollout); err != nil {
				return err
			}
			return g.print(approvedStep{given[0], course.Canary.Name, int(course.Step) + 1, whoami(ctx, kube)}, func(w io.Writer) {
				fmt.Fprintf(w, "step %d of Bundle %s is approved\n", course.Step+1, course.Canary.Name)
			})
		},
	}
}

// approve writes down a person's yes to what the Rollout waits at.
func approve(ctx context.Context, kube client.Client, rollout *v1alpha1.Rollout) error {
	text, err := json.Marshal(v1alpha1.StepApproval{
		Bundle: rollout.Status.Target.Digest, Step: int(rollout.Status.Course.Step), Answers: waitsSince(rollout), At: time.Now().UTC(), By: whoami(ctx, kube),
	})
	if err != nil {
		return err
	}
	return annotate(ctx, kube, rollout, manifests.AnnotationApproved, string(text))
}

// waitsSince is the time of what a Rollout waits at.
func waitsSince(rollout *v1alpha1.Rollout) time.Time {
	switch {
	case rollout.Status.Verdict != nil:
		return rollout.Status.Verdict.At.UTC()
	case rollout.Status.Course.Since != nil:
		return rollout.Status.Course.Since.UTC()
	}
	return time.Time{}
}

// rollout reads one Rollout.
func (g *globals) rollout(ctx context.Context, name string) (client.Client, *v1alpha1.Rollout, error) {
	namespace, of, is := strings.Cut(name, "/")
	if !is || namespace == "" || of == "" {
		return nil, nil, usage("rollout %s: want NAMESPACE/NAME", name)
	}
	kube, _, err := g.kube()
	if err != nil {
		return nil, nil, err
	}
	rollout := &v1alpha1.Rollout{}
	if err := kube.Get(ctx, client.ObjectKey{Namespace: namespace, Name: of}, rollout); err != nil {
		return nil, nil, fmt.Errorf("rollout %s: %w", name, err)
	}
	return kube, rollout, nil
}
