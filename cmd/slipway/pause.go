package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os/user"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// longestPause bounds what breaks the rule that Git decides.
const longestPause = 24 * time.Hour

// pause is what the agent reads from manifests.AnnotationPause.
type pause struct {
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
}

func pauseCommand(g *globals) *cobra.Command {
	var lasting time.Duration
	var reason string
	var resume bool
	cmd := &cobra.Command{
		Use:   "pause APPLICATION",
		Short: "Break glass: let the agent keep its hands off for a while",
		Long: `Break glass: the agent neither applies nor heals an Application for a while, so that
people can work on the live objects. It ends by itself; then what was changed by hand is
put back to what Git says. The API server's audit log shows who did it.`,
		Example: `  slipway pause shop-production --for 1h --reason "INC-42: scaling by hand"
  slipway pause shop-production --resume`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			kube, _, err := g.kube()
			if err != nil {
				return err
			}
			var app v1alpha1.Application
			if err := kube.Get(cmd.Context(), client.ObjectKey{Namespace: g.namespace, Name: given[0]}, &app); err != nil {
				return fmt.Errorf("application %s: %w", given[0], err)
			}
			before := app.DeepCopy()
			if resume {
				delete(app.Annotations, manifests.AnnotationPause)
				if err := kube.Patch(cmd.Context(), &app, client.MergeFrom(before)); err != nil {
					return fmt.Errorf("application %s: %w", app.Name, err)
				}
				return g.print(map[string]any{"application": app.Name, "paused": false}, func(w io.Writer) {
					fmt.Fprintf(w, "%s goes on\n", app.Name)
				})
			}
			if lasting <= 0 || lasting > longestPause || reason == "" {
				return usage("pause needs --for (at most %s) and --reason", longestPause)
			}
			p := pause{Until: time.Now().Add(lasting).UTC().Truncate(time.Second), Reason: reason, By: whoami()}
			text, err := json.Marshal(p)
			if err != nil {
				return err
			}
			if app.Annotations == nil {
				app.Annotations = map[string]string{}
			}
			app.Annotations[manifests.AnnotationPause] = string(text)
			if err := kube.Patch(cmd.Context(), &app, client.MergeFrom(before)); err != nil {
				return fmt.Errorf("application %s: %w", app.Name, err)
			}
			return g.print(map[string]any{"application": app.Name, "paused": true, "until": p.Until}, func(w io.Writer) {
				fmt.Fprintf(w, "%s is paused until %s; end it with: slipway pause %s --resume\n", app.Name, clock(p.Until), app.Name)
			})
		},
	}
	cmd.Flags().DurationVar(&lasting, "for", 0, "how long, at most 24h")
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	cmd.Flags().BoolVar(&resume, "resume", false, "end the pause")
	return cmd
}

func whoami() string {
	if current, err := user.Current(); err == nil {
		return current.Username
	}
	return ""
}
