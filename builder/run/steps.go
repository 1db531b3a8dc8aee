package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
	"github.com/slipway-cd/slipway/gitsource"
)

// Inside of a sandbox.
const (
	insideWorkspace = "/workspace"
	insideHome      = "/tmp"
)

// steps executes the steps of the stage in their order; the first that fails ends them.
func (j *job) steps(ctx context.Context) error {
	rootfs, err := j.rootFS(ctx)
	if err != nil {
		return err
	}
	for i, s := range j.stage.Steps {
		step := &j.claim.Job.Steps[i]
		step.State, step.Started = builder.Running, j.w.o.Now()
		if err := j.progress(ctx); err != nil {
			return err
		}
		if err := j.step(ctx, i, s, rootfs); err != nil {
			return fmt.Errorf("step %s: %w", step.Name, err)
		}
		step.State, step.Finished = builder.Succeeded, j.w.o.Now()
		if s.Run != "" {
			j.w.o.Failpoint(FailpointStep)
		}
	}
	return nil
}

// progress shows where the Job is. That may fail: what counts is the report.
func (j *job) progress(ctx context.Context) error {
	err := j.save(ctx)
	if err != nil && !errors.Is(err, errStale) && ctx.Err() == nil {
		j.w.o.Log.Info("the progress of a job was not stored", "run", j.rec.Run.ID, "job", j.stage.Name, "cause", err.Error())
		return nil
	}
	return err
}

// rootFS unpacks the stage's image; empty for the machine's own tools.
func (j *job) rootFS(ctx context.Context) (string, error) {
	if j.stage.Image == "" {
		return "", nil
	}
	if j.w.o.Images == nil {
		return "", fmt.Errorf("image %s: worker %s reads no images", j.stage.Image, j.w.o.Name)
	}
	dir, digest, err := j.w.o.Images.RootFS(ctx, j.stage.Image)
	if err != nil {
		return "", transient(fmt.Errorf("image %s: %w", j.stage.Image, err))
	}
	j.logs.say(0, "runs in "+j.stage.Image+" ("+digest+")")
	return dir, nil
}

func (j *job) step(ctx context.Context, i int, s pipeline.Step, rootfs string) error {
	switch {
	case s.Uses == pipeline.Checkout:
		return j.checkout(ctx, i)
	case s.Uses == pipeline.GoImage:
		return j.goImage(ctx, i, s, rootfs)
	case s.Uses != "":
		return fmt.Errorf("a worker cannot carry out %q", s.Uses)
	}
	code, err := j.command(ctx, i, call{
		rootfs: rootfs, argv: []string{"/bin/sh", "-e", "-c", s.Run}, env: j.env(s.Env, nil), network: j.stage.Network, mounts: j.mounts(),
	})
	j.claim.Job.Steps[i].ExitCode = code
	return err
}

func (j *job) checkout(ctx context.Context, i int) error {
	snapshot, err := j.w.o.Source.Snapshot(ctx, j.rec.Run.Repo, j.rec.Run.Revision)
	if errors.Is(err, gitsource.ErrNotFound) {
		return err
	}
	if err != nil {
		return transient(err)
	}
	out := checkout{
		tree: snapshot.Tree, say: func(text string) { j.logs.say(i, text) }, failpoint: func() { j.w.o.Failpoint(FailpointCheckout) },
	}
	if err := out.write(ctx, filepath.Join(j.folder, "workspace")); err != nil {
		return err
	}
	j.logs.say(i, fmt.Sprintf("%d files of %s", out.files, j.rec.Run.Revision))
	return nil
}

func (j *job) goImage(ctx context.Context, i int, s pipeline.Step, rootfs string) error {
	if j.w.o.Images == nil {
		return fmt.Errorf("worker %s builds no images", j.w.o.Name)
	}
	image := GoImage{
		Package: s.With["package"], Repository: s.With["repository"], Base: s.With["base"], Tags: list(s.With["tags"]),
		Platforms: list(s.With["platforms"]), LDFlags: s.With["ldflags"], Labels: list(s.With["labels"]),
		Revision: j.rec.Run.Revision, Time: j.rec.Committed,
	}
	if image.Package == "" {
		image.Package = "."
	}
	j.w.o.Failpoint(FailpointBuild)
	built, err := j.w.o.Images.BuildGo(ctx, image, filepath.Join(j.folder, "workspace"), &runner{job: j, step: i, env: s.Env, rootfs: rootfs})
	if err != nil {
		return transient(err)
	}
	built.Image.Revision = j.rec.Run.Revision
	j.claim.Built = append(j.claim.Built, built)
	j.claim.Job.Images = append(j.claim.Job.Images, built.Image)
	j.logs.say(i, "pushed "+built.Image.Reference())
	j.w.o.Failpoint(FailpointPush)
	return nil
}

// list reads values that are set apart by commas or spaces.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' })
}

// runner runs commands of a build where the Job's own run, with the builder's caches.
type runner struct {
	job    *job
	step   int
	env    map[string]string
	rootfs string
}

// Run runs one command.
func (r *runner) Run(ctx context.Context, command, env []string, network bool) error {
	_, err := r.job.command(ctx, r.step, call{
		rootfs: r.rootfs, argv: command, env: r.job.env(r.env, env), network: network,
		mounts: slices.Concat(r.job.mounts(), r.job.w.o.Images.Caches()),
	})
	return err
}

// call is one command of a step.
type call struct {
	rootfs  string
	argv    []string
	env     []string
	network bool
	mounts  []Mount
}

// command runs in the sandbox and returns the exit code. The error says in words how it ended; what the command itself did
// it would do again.
func (j *job) command(ctx context.Context, i int, c call) (int, error) {
	first := true
	result, err := j.w.o.Sandbox.Run(ctx, Spec{
		ID: fmt.Sprintf("%s-%s", filepath.Base(j.folder), randomID()), RootFS: c.rootfs, Workspace: filepath.Join(j.folder, "workspace"),
		Mounts: c.mounts, Command: c.argv, Env: c.env, Dir: insideWorkspace, Network: c.network, Limits: j.w.o.Limits,
		Output: func(stream string, line []byte) {
			j.logs.add(i, stream, line)
			if first {
				first = false
				j.w.o.Failpoint(FailpointRun)
			}
		},
	})
	switch {
	case ctx.Err() != nil:
		return result.ExitCode, context.Cause(ctx)
	case err != nil:
		return 0, transient(fmt.Errorf("sandbox: %w", err))
	case result.OOMKilled:
		return result.ExitCode, refuse("killed, because it used more memory than it may")
	case result.TimedOut:
		return result.ExitCode, refuse("timed out")
	case result.ExitCode != 0:
		return result.ExitCode, refuse("exit code %d", result.ExitCode)
	}
	return 0, nil
}

func (j *job) mounts() []Mount {
	if j.w.o.Mounts == nil {
		return nil
	}
	return j.w.o.Mounts(j.rec.Run)
}

// env returns all variables of a command, sorted: what every one sees, then what the file sets, then what a builder sets.
func (j *job) env(step map[string]string, builder []string) []string {
	r := j.rec.Run
	all := map[string]string{
		"PATH": j.w.o.Path, "HOME": insideHome, "LANG": "C.UTF-8", "CI": "true",
		"SLIPWAY_RUN": r.ID, "SLIPWAY_JOB": j.stage.Name, "SLIPWAY_REPO": r.Repo.Name, "SLIPWAY_TRACE": r.Trace,
		"SLIPWAY_COMMIT": string(r.Revision.ID), "SLIPWAY_REF": r.Revision.Ref,
	}
	for _, from := range []map[string]string{j.pipeline.Env, j.stage.Env, step} {
		maps.Copy(all, from)
	}
	for _, pair := range builder {
		name, value, _ := strings.Cut(pair, "=")
		all[name] = value
	}
	out := make([]string, 0, len(all))
	for name, value := range all {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}
