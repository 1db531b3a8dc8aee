package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/console/client"
)

func logsCommand(g *globals) *cobra.Command {
	var at serverFlags
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs RUN [JOB]",
		Short: "Print what the jobs of a run print",
		Long: `Print what the jobs of a run print, each line behind its job and step. With --follow it
goes on until the run, or the job that is named, has ended, also over restarts of the
server; the exit code is then 0 only if it succeeded.`,
		Example: `  slipway logs 20261101-080000-000-0123456789 -f
  slipway logs 20261101-080000-000-0123456789 test
  slipway logs 20261101-080000-000-0123456789 test -o json`,
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			server, err := at.client(g)
			if err != nil {
				return err
			}
			l, err := g.openLogs(cmd.Context(), server, given)
			if err != nil {
				return err
			}
			if follow {
				return l.follow(cmd.Context())
			}
			return l.printAll(cmd.Context())
		},
	}
	at.add(cmd.Flags())
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until it has ended")
	return cmd
}

// logs are those of one run, or of one job of it.
type logs struct {
	g      *globals
	server *client.Client
	run    builder.Run
	jobs   []builder.Job
	named  bool // one job was asked for

	mu    sync.Mutex
	steps map[string][]builder.Step // by job; grows as they begin
}

func (g *globals) openLogs(ctx context.Context, server *client.Client, given []string) (*logs, error) {
	run, err := server.Run(ctx, given[0])
	if err != nil {
		return nil, err
	}
	l := &logs{g: g, server: server, run: run, jobs: run.Jobs, steps: map[string][]builder.Step{}}
	var names []string
	for _, job := range run.Jobs {
		l.steps[job.Name] = job.Steps
		names = append(names, job.Name)
		if len(given) == 2 && job.Name == given[1] {
			l.jobs, l.named = []builder.Job{job}, true
		}
	}
	if len(given) == 2 && !l.named {
		return nil, fmt.Errorf("run %s: job %s: %w (it has %s)", run.ID, given[1], builder.ErrNotFound, strings.Join(names, ", "))
	}
	return l, nil
}

// printAll prints what there is, job by job.
func (l *logs) printAll(ctx context.Context) error {
	for _, job := range l.jobs {
		if err := l.server.Logs(ctx, l.run.ID, job.Name, func(line builder.Log) error { return l.print(ctx, job.Name, line) }); err != nil {
			return err
		}
	}
	return nil
}

// follow prints all jobs at once until they have ended, and says how.
func (l *logs) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make([]client.End, len(l.jobs))
	faults := make([]error, len(l.jobs))
	var following sync.WaitGroup
	for i, job := range l.jobs {
		following.Go(func() {
			ends[i], faults[i] = l.server.Follow(ctx, l.run.ID, job.Name, func(line builder.Log) error { return l.print(ctx, job.Name, line) }, l.lost())
			if faults[i] != nil {
				cancel() // the others would go on alone
				return
			}
			faults[i] = l.say(job.Name, strings.TrimSpace(ends[i].State.String()+" "+ends[i].Reason))
		})
	}
	following.Wait()
	for _, err := range faults {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.named {
		return verdict(fmt.Sprintf("run %s: job %s", l.run.ID, l.jobs[0].Name), ends[0].State, ends[0].Reason)
	}
	run, err := l.ended(ctx)
	if err != nil {
		return err
	}
	if err := l.say("run "+run.ID, strings.TrimSpace(run.State.String()+" "+run.Reason)); err != nil {
		return err
	}
	return verdict("run "+run.ID, run.State, run.Reason)
}

// ended waits for the run itself, which ends shortly after its last job.
func (l *logs) ended(ctx context.Context) (builder.Run, error) {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		run, err := l.server.Run(ctx, l.run.ID)
		var refused *client.Error
		if err == nil && run.State.Ended() || errors.As(err, &refused) && !refused.Temporary() {
			return run, err
		}
		select {
		case <-ctx.Done():
			return builder.Run{}, ctx.Err()
		case <-tick.C:
		}
	}
}

func verdict(what string, state builder.State, reason string) error {
	if state == builder.Succeeded {
		return nil
	}
	if reason == "" {
		return fmt.Errorf("%s: %s", what, state)
	}
	return fmt.Errorf("%s: %s: %s", what, state, reason)
}

// lost says once for each interruption that the server is away.
func (l *logs) lost() func(error) {
	return func(err error) { _ = l.say("server", err.Error()+"; trying again") } // the next line tells if nobody listens
}

// say prints a word of ours between the lines; none where a program reads them.
func (l *logs) say(what, text string) error {
	if l.g.output == "json" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := fmt.Fprintf(l.g.out, "== %s: %s\n", what, text)
	return err
}

// jobLine is a line with the job that it is of.
type jobLine struct {
	Job string `json:"job"`
	builder.Log
}

func (l *logs) print(ctx context.Context, job string, line builder.Log) error {
	if l.g.output == "json" {
		l.mu.Lock()
		defer l.mu.Unlock()
		encoder := json.NewEncoder(l.g.out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(jobLine{job, line})
	}
	step := l.step(ctx, job, line.Step)
	l.mu.Lock()
	defer l.mu.Unlock()
	mark := "|"
	if line.Stream == "stderr" {
		mark = "!"
	}
	_, err := io.WriteString(l.g.out, job+"/"+step+" "+mark+" "+printable(line.Text)+"\n")
	return err
}

// step returns the name of a step; a job's steps may be known only once it has begun.
func (l *logs) step(ctx context.Context, job string, index int) string {
	l.mu.Lock()
	steps := l.steps[job]
	l.mu.Unlock()
	if index >= len(steps) {
		if run, err := l.server.Run(ctx, l.run.ID); err == nil {
			l.mu.Lock()
			for _, j := range run.Jobs {
				l.steps[j.Name] = j.Steps
			}
			steps = l.steps[job]
			l.mu.Unlock()
		}
	}
	if index < 0 || index >= len(steps) || steps[index].Name == "" {
		return fmt.Sprint(index)
	}
	return steps[index].Name
}

// printable leaves colours in, and takes out what would move the cursor or change
// the terminal: logs are written by whoever may push.
func printable(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); {
		if n := colour(text[i:]); n > 0 {
			out.WriteString(text[i : i+n])
			i += n
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '\t' || unicode.IsPrint(r):
			out.WriteRune(r)
		case r != '\r':
			fmt.Fprintf(&out, "\\x%02x", r)
		}
		i += size
	}
	return out.String()
}

// colour returns the length of the SGR sequence (ECMA-48, 8.3.117) that text begins with, else 0.
func colour(text string) int {
	rest, found := strings.CutPrefix(text, "\x1b[")
	if !found {
		return 0
	}
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789;:"))
	if digits < len(rest) && rest[digits] == 'm' {
		return len("\x1b[") + digits + 1
	}
	return 0
}
