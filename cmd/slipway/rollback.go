package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/slipway-cd/slipway/promoter"
)

func rollbackCommand(g *globals) *cobra.Command {
	var env, to, reason string
	var lift bool
	cmd := &cobra.Command{
		Use:   "rollback APP --env ENVIRONMENT",
		Short: "Put an app's files back to an earlier state, by a commit",
		Long: `Put an app's files in an environment back to what they were, by a new commit. What is
left behind is held, so that nothing brings it in again by itself. Freezes do not stop it.`,
		Example: `  slipway rollback shop --env production -m "checkout is slow"
  slipway rollback shop --env production --to 1a2b3c4`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx := cmd.Context()
			author, err := g.person(ctx)
			if err != nil {
				return err
			}
			if to != promoter.Previous {
				repo, _, err := g.open(ctx)
				if err != nil {
					return err
				}
				id, err := g.commitID(ctx, repo, to)
				if err != nil {
					return err
				}
				to = string(id)
			}
			p, err := g.promoter(ctx)
			if err != nil {
				return err
			}
			result, err := p.Rollback(ctx, promoter.RollbackRequest{
				App: given[0], Environment: env, To: to, Author: author, Reason: reason, Lift: lift,
			})
			if err != nil {
				return err
			}
			return g.written(result, func(w io.Writer) {
				fmt.Fprintf(w, "%s in %s is rolled back by commit %s on %s\n", given[0], env, result.Commit.Short(), result.Branch)
			})
		},
	}
	cmd.Flags().StringVarP(&env, "env", "e", "", "environment of slipway.yaml (required)")
	cmd.Flags().StringVar(&to, "to", promoter.Previous, "commit to go back to; previous is the newest earlier state that is not held")
	cmd.Flags().StringVarP(&reason, "message", "m", "", "why, for the commit message")
	cmd.Flags().BoolVar(&lift, "lift-hold", false, "go back to an image although it is held, and remove the hold")
	_ = cmd.MarkFlagRequired("env")
	return cmd
}
