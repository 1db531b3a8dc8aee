package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-cd/slipway/cmd/internal/owned"
)

func eventsCommand(g *globals) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "events [APPLICATION...]",
		Short: "Show what happened to Applications and what they own",
		Long: `Show the events of Applications, of their sources, of the objects that they own and of the
Pods and ReplicaSets that were made of those, the newest last. A cluster forgets events,
by default after an hour. With --follow it goes on until it is interrupted.`,
		Example: `  slipway events
  slipway events shop-production --follow
  slipway events shop-production -o json`,
		RunE: func(cmd *cobra.Command, names []string) error {
			kube, _, err := g.kube()
			if err != nil {
				return err
			}
			ctx, reader := cmd.Context(), owned.Reader{Kube: kube, Namespace: g.namespace}
			if follow {
				return g.followEvents(ctx, reader, names)
			}
			events, err := reader.Events(ctx, names...)
			if err != nil {
				return err
			}
			return g.print(events, func(w io.Writer) {
				for _, event := range events {
					printEvent(w, g.terminal, event)
				}
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted; with -o json an object for each event")
	return cmd
}

func (g *globals) followEvents(ctx context.Context, reader owned.Reader, names []string) error {
	encoder := json.NewEncoder(g.out)
	encoder.SetEscapeHTML(false)
	return reader.Follow(ctx, names, func(event owned.Event) error {
		if g.output == "json" {
			return encoder.Encode(event)
		}
		return printEvent(g.out, g.terminal, event)
	})
}

// printEvent writes one event on a line, or on more where a terminal is too narrow.
func printEvent(w io.Writer, t terminal, event owned.Event) error {
	what := event.Kind + " " + event.Name
	if event.Kind != "Application" && event.Kind != "GitSource" && event.Namespace != "" {
		what = event.Kind + " " + event.Namespace + "/" + event.Name
	}
	times := ""
	if event.Count > 1 {
		times = fmt.Sprintf(" (%d times)", event.Count)
	}
	with := faint
	if event.Type == corev1.EventTypeWarning {
		with = bad
	}
	head := event.At.Format(time.DateTime) + "Z  "
	text := printable(strings.Join(strings.Fields(event.Message), " ")) + times
	if t.width == 0 {
		_, err := fmt.Fprintf(w, "%s%s  %s: %s\n", head, what, event.Reason, text)
		return err
	}
	if _, err := fmt.Fprintf(w, "%s%s  %s\n", head, shorten(what, max(20, t.width-len(head)-len(event.Reason)-2)), t.paint(with, event.Reason)); err != nil {
		return err
	}
	for _, line := range wrap(text, max(20, t.width-4)) {
		if _, err := fmt.Fprintf(w, "    %s\n", line); err != nil {
			return err
		}
	}
	return nil
}
