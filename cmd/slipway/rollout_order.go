package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func rolloutPauseCommand(g *globals) *cobra.Command {
	return rolloutOrderCommand(g, false, &cobra.Command{
		Use:   "pause NAMESPACE/NAME",
		Short: "Let a Rollout go no step further for a while",
		Long: `Let a Rollout go no step further for a while. The new version keeps the traffic that it has, and
is judged as before: a Fail returns all of it. It ends by itself, by 'slipway rollout retry', or
when Git asks for another version.`,
		Example: `  slipway rollout pause shop/web --reason "INC-42: wait for the database"`,
	})
}

func rolloutAbortCommand(g *globals) *cobra.Command {
	return rolloutOrderCommand(g, true, &cobra.Command{
		Use:   "abort NAMESPACE/NAME",
		Short: "Return all traffic to stable and take the new version out for a while",
		Long: `Return all traffic to stable and take the new version out for a while. That is no Fail: Git is
not reverted, and still asks for the version. When it ends, by itself or by 'slipway rollout
retry', the version starts over. To keep it out revert the commit (slipway rollback).`,
		Example: `  slipway rollout abort shop/web --reason "INC-42: checkout is slow"`,
	})
}

// orderedAs says what an order does.
func orderedAs(abort bool) string {
	if abort {
		return "aborted"
	}
	return "paused"
}

// orderedRollout is what rollout pause, abort and retry answer.
type orderedRollout struct {
	Rollout string                 `json:"rollout"`
	Order   *v1alpha1.RolloutOrder `json:"order,omitempty"`
}

func rolloutOrderCommand(g *globals, abort bool, cmd *cobra.Command) *cobra.Command {
	var lasting time.Duration
	var reason string
	cmd.Args = args(cobra.ExactArgs(1))
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		switch {
		case lasting <= 0 || lasting > v1alpha1.LongestOrder:
			return usage("--for %s: want more than nothing and at most %s", lasting, v1alpha1.LongestOrder)
		case reason == "":
			return usage("rollout %s needs --reason: others will ask why it does not go on", cmd.Name())
		}
		ctx := cmd.Context()
		kube, rollout, err := g.rollout(ctx, given[0])
		if err != nil {
			return err
		}
		if err := canBeOrdered(rollout); err != nil {
			return fmt.Errorf("rollout %s: %w", given[0], err)
		}
		now := time.Now().UTC().Truncate(time.Second)
		order := &v1alpha1.RolloutOrder{Bundle: rollout.Status.Target.Digest, Abort: abort, Reason: reason, By: whoami(ctx, kube), At: now, Until: now.Add(lasting)}
		text, err := json.Marshal(order)
		if err != nil {
			return err
		}
		if err := annotate(ctx, kube, rollout, manifests.AnnotationOrder, string(text)); err != nil {
			return err
		}
		message := fmt.Sprintf("%s by %s until %s: %s", orderedAs(abort), order.By, order.Until.Format(time.RFC3339), reason)
		if err := record(ctx, kube, rollout, corev1.EventTypeWarning, v1alpha1.ReasonPaused, message); err != nil {
			return err
		}
		return g.print(orderedRollout{given[0], order}, func(w io.Writer) {
			fmt.Fprintf(w, "%s is %s until %s; end it with: slipway rollout retry %s\n", given[0], orderedAs(abort), clock(order.Until), given[0])
		})
	}
	cmd.Flags().DurationVar(&lasting, "for", time.Hour, "how long, at most 24h")
	cmd.Flags().StringVar(&reason, "reason", "", "why (required)")
	return cmd
}

// canBeOrdered is nil while a version comes in beside another one.
func canBeOrdered(rollout *v1alpha1.Rollout) error {
	phase := rollout.Status.Phase
	switch {
	case rollout.Spec.WorkloadRef.Kind != "StatefulSet" && rollout.Spec.Strategy.Rolling != nil && len(rollout.Spec.Strategy.Rolling.Batches) == 0:
		return errors.New("with the strategy rolling and no batches the Deployment is in charge (slipway suspend, or kubectl rollout pause)")
	case phase != v1alpha1.PhaseProgressing && phase != v1alpha1.PhasePaused || rollout.Status.Target == nil || rollout.Status.Stable == nil:
		return fmt.Errorf("it is %s: no version is coming in beside a stable one", or(string(phase)))
	}
	return nil
}

func orderOf(rollout *v1alpha1.Rollout) *v1alpha1.RolloutOrder {
	var order v1alpha1.RolloutOrder
	target := rollout.Status.Target
	if json.Unmarshal([]byte(rollout.Annotations[manifests.AnnotationOrder]), &order) != nil || target == nil || order.Bundle != target.Digest {
		return nil
	}
	return &order
}

func rolloutRetryCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "retry NAMESPACE/NAME",
		Short: "End what pause or abort began",
		Long: `End what pause or abort began, before it ends by itself. What was aborted starts over from
stable, and so does a version that was taken out because its metrics said nothing. One that has
failed does not come back: commit another one.`,
		Example: "  slipway rollout retry shop/web",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx := cmd.Context()
			kube, rollout, err := g.rollout(ctx, given[0])
			if err != nil {
				return err
			}
			course := rollout.Status.Course
			switch {
			case orderOf(rollout) != nil:
				err = annotate(ctx, kube, rollout, manifests.AnnotationOrder, "")
			case course != nil && course.Withdrawn && rollout.Status.Verdict != nil:
				err = approve(ctx, kube, rollout)
			default:
				err = fmt.Errorf("rollout %s: it is %s, and nothing of it was paused or aborted", given[0], or(string(rollout.Status.Phase)))
			}
			if err != nil {
				return err
			}
			if err := record(ctx, kube, rollout, corev1.EventTypeNormal, "Resumed", "resumed by "+whoami(ctx, kube)); err != nil {
				return err
			}
			return g.print(orderedRollout{Rollout: given[0]}, func(w io.Writer) { fmt.Fprintf(w, "%s goes on\n", given[0]) })
		},
	}
}
