package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/undo"
	"github.com/slipway-cd/slipway/rollout"
)

// rolloutStatus is what rollout status answers.
type rolloutStatus struct {
	Rollout string                `json:"rollout"`
	Phase   v1alpha1.RolloutPhase `json:"phase"`
	Stable  string                `json:"stable,omitempty"`
	Target  string                `json:"target,omitempty"`
	// Undo says that the target ran until lately, and comes in without steps and analysis.
	Undo bool `json:"undo,omitempty"`
	// Step counts from one, of Steps; it and Weight are absent while nothing runs beside stable.
	Step    int                       `json:"step,omitempty"`
	Steps   int                       `json:"steps,omitempty"`
	Weight  int                       `json:"weight,omitempty"`
	Header  *v1alpha1.RolloutHeader   `json:"header,omitempty"`
	Metrics []v1alpha1.MetricEvidence `json:"metrics,omitempty"` // that are measured now, against their limits
	Trail   []v1alpha1.TrailPoint     `json:"trail,omitempty"`   // of steps and traffic, oldest first
	Order   *v1alpha1.RolloutOrder    `json:"order,omitempty"`   // that is in force
	Verdict *v1alpha1.Verdict         `json:"verdict,omitempty"`
}

func rolloutStatusCommand(g *globals) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status NAMESPACE/NAME",
		Short: "Show how far a Rollout has come",
		Long: `Show how far a Rollout has come: its step and its traffic, what its metrics ask, what they are
held against and what they have shown, the time line, and the verdict with what it was judged on.`,
		Example: "  slipway rollout status shop/web\n  slipway rollout status shop/web --watch\n  slipway rollout status shop/web -o json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if watch {
				return g.watchRollout(cmd.Context(), given[0])
			}
			_, live, err := g.rollout(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			status := statusOfRollout(live)
			return g.print(status, func(w io.Writer) { printRollout(w, status) })
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it anew whenever it changes, until it is Healthy or Failed")
	return cmd
}

// watchEvery is how often rollout status --watch looks.
const watchEvery = time.Second

// watchRollout shows a Rollout whenever what there is to show has changed, and ends when nothing moves any more.
func (g *globals) watchRollout(ctx context.Context, name string) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for shown := ""; ; {
		_, live, err := g.rollout(ctx, name)
		if err != nil && (apierrors.IsNotFound(err) || ctx.Err() != nil) {
			return err
		}
		if err == nil {
			status := statusOfRollout(live)
			text, err := json.Marshal(status)
			if err != nil {
				return err
			}
			if string(text) != shown {
				shown = string(text)
				err := g.print(status, func(w io.Writer) {
					fmt.Fprintf(w, "%s  ", clock(time.Now()))
					printRollout(w, status)
				})
				if err != nil {
					return err
				}
			}
			if arrived(live) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// arrived says that a Rollout has done what its spec asks for, or has failed at it.
func arrived(live *v1alpha1.Rollout) bool {
	ended := live.Status.Phase == v1alpha1.PhaseHealthy || live.Status.Phase == v1alpha1.PhaseFailed
	return ended && live.Spec.Bundle != nil && live.Status.Target != nil && live.Spec.Bundle.Digest == live.Status.Target.Digest
}

func statusOfRollout(live *v1alpha1.Rollout) rolloutStatus {
	known := rollout.StateOf(live, time.Now())
	status := rolloutStatus{
		Rollout: live.Namespace + "/" + live.Name, Phase: known.Phase, Undo: known.Undo, Step: int(known.Step), Steps: int(known.Steps), Weight: int(known.Weight),
		Header: known.Header, Metrics: known.Metrics, Trail: known.Trail, Order: known.Order, Verdict: known.Verdict,
	}
	if known.Stable != nil {
		status.Stable = known.Stable.Name
	}
	if known.Target != nil {
		status.Target = known.Target.Name
	}
	return status
}

func printRollout(w io.Writer, status rolloutStatus) {
	fmt.Fprintf(w, "%s is %s\n  stable  %s\n  target  %s", status.Rollout, or(string(status.Phase)), or(status.Stable), or(status.Target))
	if status.Undo {
		fmt.Fprint(w, ", which ran until lately: without steps and analysis")
	}
	fmt.Fprintln(w)
	if status.Step > 0 {
		fmt.Fprintf(w, "  step    %d of %d, with %d%% of traffic", min(status.Step, status.Steps), status.Steps, status.Weight)
		if status.Header != nil {
			fmt.Fprintf(w, " and requests with %s: %s", status.Header.Name, status.Header.Value)
		}
		fmt.Fprintln(w)
	}
	for i := range status.Metrics {
		printMetric(w, &status.Metrics[i])
	}
	if order := status.Order; order != nil {
		fmt.Fprintf(w, "  %-7s until %s by %s: %s\n", orderedAs(order.Abort), clock(order.Until), order.By, order.Reason)
	}
	for i := range status.Trail {
		head := ""
		if i == 0 {
			head = "trail"
		}
		fmt.Fprintf(w, "  %-7s %s\n", head, undo.TrailLine(&status.Trail[i]))
	}
	if status.Verdict == nil {
		return
	}
	fmt.Fprintf(w, "  verdict %s: %s\n", status.Verdict.Outcome, status.Verdict.Message)
	if e := status.Verdict.Evidence; e != nil && status.Verdict.Outcome == v1alpha1.VerdictFail {
		for i := range e.Metrics {
			printMetric(w, &e.Metrics[i])
		}
		for i := range e.Pods {
			printLines(w, "pod", undo.PodLines(&e.Pods[i]))
		}
	}
}

func printMetric(w io.Writer, m *v1alpha1.MetricEvidence) {
	printLines(w, "metric", undo.MetricLines(m))
}

func printLines(w io.Writer, head string, lines []string) {
	for i, line := range lines {
		if i > 0 {
			head = ""
		}
		fmt.Fprintf(w, "  %-7s %s\n", head, line)
	}
}
