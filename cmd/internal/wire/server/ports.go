package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/oci"
	"github.com/slipway-cd/slipway/builder/queue"
	"github.com/slipway-cd/slipway/builder/run"
	"github.com/slipway-cd/slipway/builder/sandbox"
	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter"
)

// loopQueue and workerQueue show a queue as the loop and its workers want to see it.
func loopQueue(q *queue.Queue) run.Queue {
	return run.Queue{
		Runs: q.Runs, Jobs: q.Jobs, RunList: q.Runs, JobList: q.Jobs, Leases: q.Leases, Owners: q.Leases,
		Deliveries: q.Deliveries, Hints: q.Hints, Logs: q.Logs, Log: q.Logs,
	}
}

func workerQueue(q *queue.Queue) run.WorkerQueue {
	return run.WorkerQueue{Runs: q.Runs, Jobs: q.Jobs, Leases: q.Leases, Hints: q.Hints, Log: q.Logs}
}

// isolated is a Sandbox as a worker wants to see it.
type isolated struct{ *sandbox.Sandbox }

func (s isolated) Tier() run.Tier { return run.Tier(s.Sandbox.Tier()) }

func (s isolated) Run(ctx context.Context, spec run.Spec) (run.Result, error) {
	var mounts []sandbox.Mount
	env := spec.Env
	for _, m := range spec.Mounts {
		mounts = append(mounts, sandbox.Mount(m))
		// A command is told of the caches that it has, unless the pipeline says otherwise.
		for target, variable := range map[string]string{oci.BuildCache: "GOCACHE=", oci.ModuleCache: "GOMODCACHE="} {
			if m.Target == target && !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, variable) }) {
				env = append(slices.Clone(env), variable+target)
			}
		}
	}
	result, err := s.Sandbox.Run(ctx, sandbox.Spec{
		ID: spec.ID, RootFS: spec.RootFS, Workspace: spec.Workspace, Mounts: mounts, Command: spec.Command, Env: env, Dir: spec.Dir,
		Network: spec.Network, Memory: spec.Limits.Memory, CPUs: spec.Limits.CPUs, PIDs: spec.Limits.PIDs, Timeout: spec.Timeout,
		Output: spec.Output,
	})
	return run.Result(result), err
}

// images is a registry as a worker wants to see it.
type images struct{ *oci.Registry }

// Caches are none beside those that every command of a Run has: which they are depends on whose Run it is.
func (i images) Caches() []run.Mount { return nil }

func (i images) BuildGo(ctx context.Context, image run.GoImage, workspace string, runner run.Runner) (run.Built, error) {
	built, err := i.Registry.BuildGo(ctx, oci.GoImage{
		Package: image.Package, Repository: image.Repository, Base: image.Base, Tags: image.Tags, Platforms: image.Platforms,
		LDFlags: image.LDFlags, Labels: image.Labels, Revision: image.Revision, Time: image.Time,
	}, workspace, runner)
	var failed *oci.Error
	if errors.Is(err, oci.ErrRefused) || errors.As(err, &failed) && !failed.Temporary() {
		return run.Built{}, fmt.Errorf("%w: %w", run.ErrRefused, err)
	}
	result := run.Built{Image: built.Image, GoVersion: built.GoVersion, Base: built.Base}
	for _, m := range built.Materials {
		result.Materials = append(result.Materials, run.Material(m))
	}
	return result, err
}

// writeBack promotes by the Batch of the environment repo that a source belongs to.
type writeBack struct {
	batch func(source builder.Repo) (*promoter.Batch, bool)
}

func (w writeBack) Promote(ctx context.Context, p run.Promotion) (run.Promoted, error) {
	batch, found := w.batch(p.Run.Repo)
	if !found {
		return run.Promoted{}, fmt.Errorf("repository %s belongs to no environment repo (name one in the server's configuration): %w", p.Run.Repo.Name, run.ErrRefused)
	}
	written, err := batch.Write(ctx, promoter.Update{
		App: p.App, Environment: p.Environment, Image: p.Image, Run: p.Run.ID, Trace: p.Run.Trace, BuiltAt: p.Run.Created,
	})
	if err != nil {
		return run.Promoted{}, err
	}
	switch written.Outcome {
	case promoter.Committed, promoter.Present:
		return run.Promoted{Commit: written.Commit}, nil
	case promoter.Requested:
		return run.Promoted{Commit: written.Commit, Branch: written.Branch, URL: written.URL}, nil
	case promoter.Held, promoter.Frozen:
		return run.Promoted{Held: true, Reason: written.Reason}, nil
	case promoter.Late:
		return run.Promoted{Superseded: true, Reason: written.Reason}, nil
	}
	if err := written.Err; err != nil && !written.Again() {
		return run.Promoted{}, fmt.Errorf("%w: %w", run.ErrRefused, err)
	}
	return run.Promoted{}, errors.Join(written.Err, errors.New("not written yet"))
}

// shown is a loop whose refusals the console understands.
type shown struct{ *run.Loop }

func (s shown) Retry(ctx context.Context, id, by string) (builder.Run, error) {
	fresh, err := s.Loop.Retry(ctx, id, by)
	if errors.Is(err, run.ErrRefused) {
		err = fmt.Errorf("%w: %w", console.ErrRefused, err)
	}
	return fresh, err
}

// Committed returns when a commit was made.
func (s *stores) Committed(ctx context.Context, repo builder.Repo, revision gitsource.Revision) (time.Time, error) {
	store, err := s.store(ctx, repo.URL)
	if err != nil {
		return time.Time{}, err
	}
	commit, err := store.CommitOf(ctx, revision.ID)
	return commit.Committer.When, err
}
