package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
)

func runsCommand(g *globals) *cobra.Command {
	var at serverFlags
	var f builder.RunFilter
	var commit string
	var states []string
	cmd := &cobra.Command{
		Use:   "runs [RUN]",
		Short: "List the runs of pipelines, or show one",
		Long: `List the newest runs of pipelines, or show one with its jobs. Runs are kept by the
server; it wants a token, unless it has none and runs on this machine.`,
		Example: `  slipway runs --repository shop --state Running,Failed
  slipway runs 20261101-080000-000-0123456789
  slipway runs cancel 20261101-080000-000-0123456789 -m "wrong branch"
  slipway runs retry 20261101-080000-000-0123456789`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			server, err := at.client(g)
			if err != nil {
				return err
			}
			if len(given) == 1 {
				run, err := server.Run(cmd.Context(), given[0])
				if err != nil {
					return err
				}
				return g.print(run, func(w io.Writer) { printRun(w, run, time.Now()) })
			}
			if f.States, err = parseStates(states); err != nil {
				return err
			}
			if f.Limit < 1 || f.Limit > 200 {
				return usage("--limit %d: want 1 to 200", f.Limit)
			}
			if commit != "" {
				if f.Commit, err = gitsource.ParseObjectID(commit); err != nil {
					return usage("--commit: %w (give all of its digits)", err)
				}
			}
			runs, err := server.Runs(cmd.Context(), f)
			if err != nil {
				return err
			}
			return g.print(runs, func(w io.Writer) { printRuns(w, runs, time.Now()) })
		},
	}
	at.add(cmd.PersistentFlags())
	set := cmd.Flags()
	set.StringVar(&f.Repo, "repository", "", "only of this source repository, as the server names it")
	set.StringVar(&f.Branch, "source-branch", "", "only of this branch of the source")
	set.StringVar(&commit, "commit", "", "only of this source commit")
	set.StringVar(&f.Digest, "digest", "", "only those that built this image, sha256:...")
	set.StringSliceVar(&states, "state", nil, "only in these states: Pending, Running, Succeeded, Failed, Cancelled")
	set.IntVar(&f.Limit, "limit", 20, "how many, at most 200")
	cmd.AddCommand(cancelCommand(g, &at), retryCommand(g, &at))
	return cmd
}

func parseStates(names []string) ([]builder.State, error) {
	var states []builder.State
	for _, name := range names {
		var state builder.State
		if err := state.UnmarshalText([]byte(strings.ToUpper(name[:min(1, len(name))]) + strings.ToLower(name[min(1, len(name)):]))); err != nil {
			return nil, usage("--state: %w", err)
		}
		states = append(states, state)
	}
	return states, nil
}

func cancelCommand(g *globals, at *serverFlags) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     "cancel RUN -m REASON",
		Short:   "Stop a run; a promotion that is under way ends by itself",
		Example: `  slipway runs cancel 20261101-080000-000-0123456789 -m "wrong branch"`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if strings.TrimSpace(reason) == "" {
				return usage("-m is empty: say why, people will ask")
			}
			server, err := at.client(g)
			if err != nil {
				return err
			}
			run, err := server.Cancel(cmd.Context(), given[0], reason)
			if err != nil {
				return err
			}
			return g.print(run, func(w io.Writer) { fmt.Fprintf(w, "run %s is being cancelled\n", run.ID) })
		},
	}
	cmd.Flags().StringVarP(&reason, "message", "m", "", "why, for those who ask later")
	_ = cmd.MarkFlagRequired("message") // the flag is there
	return cmd
}

func retryCommand(g *globals, at *serverFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "retry RUN",
		Short:   "Make a new run for the same commit",
		Example: "  slipway runs retry 20261101-080000-000-0123456789",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			server, err := at.client(g)
			if err != nil {
				return err
			}
			run, err := server.Retry(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return g.print(run, func(w io.Writer) {
				fmt.Fprintf(w, "run %s has begun; see it with: slipway logs %s -f\n", run.ID, run.ID)
			})
		},
	}
}

func printRuns(w io.Writer, runs []builder.Run, now time.Time) {
	rows := make([][]string, 0, len(runs))
	for _, run := range runs {
		state := run.State.String()
		if at := slices.IndexFunc(run.Jobs, func(j builder.Job) bool { return j.State == builder.Running || j.State == builder.Failed }); at >= 0 {
			state += " (" + run.Jobs[at].Name + ")"
		}
		rows = append(rows, []string{
			run.ID, run.Repo.Name, strings.TrimPrefix(run.Revision.Ref, "refs/heads/"), run.Revision.ID.Short(), state,
			clock(run.Created), took(run.Created, run.Finished, now), run.Reason,
		})
	}
	table(w, "RUN REPOSITORY BRANCH COMMIT STATE CREATED TOOK REASON", rows)
}

func printRun(w io.Writer, run builder.Run, now time.Time) {
	fmt.Fprintf(w, "run     %s: %s\nsource  %s %s %s\ntrace   %s\n", run.ID, strings.TrimSpace(run.State.String()+" "+run.Reason),
		run.Repo.Name, strings.TrimPrefix(run.Revision.Ref, "refs/heads/"), run.Revision.ID, run.Trace)
	rows := make([][]string, 0, len(run.Jobs))
	for _, job := range run.Jobs {
		rows = append(rows, []string{job.Name, job.State.String(), took(job.Started, job.Finished, now), job.Tier, outcome(job)})
	}
	fmt.Fprintln(w)
	table(w, "JOB STATE TOOK ISOLATION RESULT", rows)
}

// outcome is what came of a job, in words.
func outcome(job builder.Job) string {
	var parts []string
	for _, image := range job.Images {
		parts = append(parts, brief(image.Reference()))
	}
	if p := job.Promotion; p != nil {
		parts = append(parts, promoted(*p))
	}
	if job.Reason != "" {
		parts = append(parts, job.Reason)
	}
	if len(job.Missing) > 0 {
		parts = append(parts, "not isolated: "+strings.Join(job.Missing, ", "))
	}
	return strings.Join(parts, "; ")
}

func promoted(p builder.Promotion) string {
	to := p.App + " in " + p.Environment
	switch {
	case p.Dropped != "":
		return to + " not written: " + p.Dropped
	case p.URL != "":
		return to + " requested: " + p.URL
	case p.Branch != "":
		return to + " requested: branch " + p.Branch
	case p.Commit != "":
		return to + " by commit " + p.Commit.Short()
	}
	return to
}

// took is how long something took, or has taken until now.
func took(begun, ended, now time.Time) string {
	if begun.IsZero() {
		return "-"
	}
	if ended.IsZero() {
		ended = now
	}
	return max(ended.Sub(begun), 0).Round(100 * time.Millisecond).String()
}
