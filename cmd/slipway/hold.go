package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-cd/slipway/promoter"
	"github.com/slipway-cd/slipway/promoter/environment"
)

func holdCommand(g *globals) *cobra.Command {
	var env, image, reason string
	var lift bool
	cmd := &cobra.Command{
		Use:   "hold APP --env ENVIRONMENT",
		Short: "Keep an image out of an environment, or let it in again",
		Long: `Keep an image out of an environment by a commit: promotions of it are refused until a
person lifts the hold or another image is promoted. Without --image it is the one that
stands there now. What runs is not changed; to change it, roll back.`,
		Example: `  slipway hold shop --env production --image registry.example/shop@sha256:... -m "leaks memory"
  slipway hold shop --env production --lift -m "was the database"`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx := cmd.Context()
			author, err := g.person(ctx)
			if err != nil {
				return err
			}
			request := promoter.HoldRequest{App: given[0], Environment: env, Author: author, Reason: reason}
			if image != "" {
				name, digest, found := strings.Cut(image, "@")
				if !found {
					name, digest = "", image
				}
				if err := environment.CheckDigest(digest); err != nil {
					return usage("--image %s: %w", image, err)
				}
				request.Image, request.Digest = name, digest
			}
			p, err := g.promoter(ctx)
			if err != nil {
				return err
			}
			do, done := p.Hold, "held in"
			if lift {
				do, done = p.Unhold, "let in again to"
			}
			result, err := do(ctx, request)
			if err != nil {
				return err
			}
			return g.written(result, func(w io.Writer) {
				fmt.Fprintf(w, "%s is %s %s by commit %s\n", given[0], done, env, result.Commit.Short())
			})
		},
	}
	cmd.Flags().StringVarP(&env, "env", "e", "", "environment of slipway.yaml (required)")
	cmd.Flags().StringVar(&image, "image", "", "NAME@sha256:DIGEST or sha256:DIGEST (default: what stands there; with --lift: all that is held)")
	cmd.Flags().StringVarP(&reason, "message", "m", "", "why (required)")
	cmd.Flags().BoolVar(&lift, "lift", false, "let it in again")
	_, _ = cmd.MarkFlagRequired("env"), cmd.MarkFlagRequired("message")
	return cmd
}

func freezeCommand(g *globals) *cobra.Command {
	var until, reason string
	var lasting time.Duration
	var lift bool
	cmd := &cobra.Command{
		Use:   "freeze ENVIRONMENT",
		Short: "Stop promotions into an environment until a time",
		Long: `Stop promotions into an environment until a time, by a commit. Reverts and rollbacks
are never stopped.`,
		Example: `  slipway freeze production --for 72h -m "holidays"
  slipway freeze production --until 2027-01-04T08:00:00Z -m "year's end"
  slipway freeze production --lift -m "back"`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx := cmd.Context()
			author, err := g.person(ctx)
			if err != nil {
				return err
			}
			p, err := g.promoter(ctx)
			if err != nil {
				return err
			}
			if lift && (until != "" || lasting != 0) {
				return usage("freeze --lift ends a freeze now; leave out --for and --until")
			}
			if lift {
				result, err := p.Unfreeze(ctx, given[0], author, reason)
				if err != nil {
					return err
				}
				return g.written(result, func(w io.Writer) { fmt.Fprintf(w, "%s is open by commit %s\n", given[0], result.Commit.Short()) })
			}
			end := time.Now().Add(lasting)
			switch {
			case (until == "") == (lasting == 0):
				return usage("freeze needs either --for or --until: it ends by itself")
			case until != "":
				if end, err = time.Parse(time.RFC3339, until); err != nil {
					return usage("--until %s: want a time like 2027-01-04T08:00:00Z", until)
				}
			}
			result, err := p.Freeze(ctx, given[0], end, author, reason)
			if err != nil {
				return err
			}
			return g.written(result, func(w io.Writer) {
				fmt.Fprintf(w, "%s is frozen until %s by commit %s\n", given[0], clock(end), result.Commit.Short())
			})
		},
	}
	cmd.Flags().StringVar(&until, "until", "", "end, as 2027-01-04T08:00:00Z")
	cmd.Flags().DurationVar(&lasting, "for", 0, "how long, as 72h")
	cmd.Flags().StringVarP(&reason, "message", "m", "", "why (required)")
	cmd.Flags().BoolVar(&lift, "lift", false, "end the freeze")
	_ = cmd.MarkFlagRequired("message")
	return cmd
}
