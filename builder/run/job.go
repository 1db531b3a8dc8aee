package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
)

// job is one attempt at one Job by one Worker. Until it has reported, nobody else changes the claim, unless they take the
// attempt away: then every further change fails with errStale.
type job struct {
	w        *Worker
	rec      record
	pipeline pipeline.Pipeline
	stage    pipeline.Stage
	claim    claim
	revision uint64
	key      string // of the claim

	folder string // of the attempt
	logs   *logs
}

// acquire claims the Job: of all who try, one succeeds. It is tried for as long as the lease is held, since whoever comes
// next would have to wait for that to end.
func (j *job) acquire(ctx context.Context) error {
	text, err := encode(j.claim)
	if err != nil {
		return err
	}
	for {
		revision, err := j.w.o.Queue.Jobs.Put(ctx, j.key, text, j.revision)
		if errors.Is(err, builder.ErrConflict) {
			revision, err = j.mine(ctx, nil) // an earlier try may have been stored, and its answer lost
		}
		if errors.Is(err, errStale) {
			return fmt.Errorf("job %s: %w", j.key, builder.ErrConflict)
		}
		if err == nil {
			j.revision = revision
			return nil
		}
		if !rest(ctx, 100*time.Millisecond) {
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// mine returns the revision of the claim if it is this attempt's, the cause if it is not known, errStale if it is not.
func (j *job) mine(ctx context.Context, cause error) (uint64, error) {
	now, revision, err := readClaim(ctx, j.w.o.Queue.Jobs, j.rec.Run.ID, j.stage.Name)
	if err != nil {
		return 0, errors.Join(cause, err)
	}
	if now.Job.Attempt != j.claim.Job.Attempt || now.Job.Worker != j.claim.Job.Worker {
		return 0, fmt.Errorf("job %s, attempt %d: %w: %w", j.key, j.claim.Job.Attempt, errStale, builder.ErrConflict)
	}
	if now.Job.State == builder.Pending { // taken away, or given back
		return 0, fmt.Errorf("job %s, attempt %d: %w: %w", j.key, j.claim.Job.Attempt, errStale, builder.ErrConflict)
	}
	return revision, nil
}

// save stores the claim, over a conflict that is only the answer to an earlier try which got lost.
func (j *job) save(ctx context.Context) error {
	text, err := encode(j.claim)
	if err != nil {
		return err
	}
	revision, err := j.w.o.Queue.Jobs.Put(ctx, j.key, text, j.revision)
	if err == nil {
		j.revision = revision
		return nil
	}
	if j.revision, err = j.keep(j.mine(ctx, err)); err != nil {
		return err
	}
	revision, err = j.w.o.Queue.Jobs.Put(ctx, j.key, text, j.revision)
	j.revision, err = j.keep(revision, err)
	return err
}

func (j *job) keep(revision uint64, err error) (uint64, error) {
	if err != nil {
		return j.revision, err
	}
	return revision, nil
}

// execute carries the Job out and reports. An error says that there was nobody to report to.
func (j *job) execute(ctx context.Context) error {
	j.logs = newLogs(j.w, j.rec.Run.ID, j.stage.Name, j.claim.Job.Attempt)
	work, stop := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { j.watch(work, stop) })
	limited, cancel := context.WithTimeoutCause(work, j.stage.Timeout, errTimeout)
	err := j.workspace(limited)
	cause := context.Cause(limited)
	cancel()
	stop(nil)
	watch.Wait()

	j.claim.Job.Finished = j.w.o.Now()
	switch {
	case errors.Is(cause, errStale), errors.Is(cause, errCancelled), errors.Is(cause, errLeaseLost):
		j.logs.say(j.current(), "stopped: "+cause.Error())
		j.logs.close(ctx)
		return cause
	case errors.Is(cause, errDrained):
		j.logs.say(j.current(), "given back: "+cause.Error())
		j.giveBack()
	case errors.Is(cause, errTimeout):
		j.failed(fmt.Sprintf("timed out after %s", j.stage.Timeout), false)
	case err != nil:
		var transient *transientError
		j.failed(err.Error(), errors.As(err, &transient))
	default:
		j.claim.Job.State = builder.Attesting
	}
	// The worker may be about to end; what it has to say is said all the same, while the lease is held.
	ctx, done := j.untilLost(ctx)
	defer done()
	j.logs.close(ctx)
	return j.report(ctx)
}

// untilLost returns a context that outlives a drained worker by some seconds, and a lost lease not at all.
func (j *job) untilLost(ctx context.Context) (context.Context, func()) {
	if !errors.Is(context.Cause(ctx), errDrained) {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), min(j.w.o.Lease/5, 2*time.Second))
}

// report stores the outcome; it is tried for as long as the lease is held.
func (j *job) report(ctx context.Context) error {
	for {
		err := j.save(ctx)
		if err == nil || errors.Is(err, errStale) {
			return err
		}
		if !rest(ctx, 100*time.Millisecond) {
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// failed says that the attempt failed. The first step that did not end is where.
func (j *job) failed(reason string, transient bool) {
	c := &j.claim
	reason = j.w.mask.Clean(reason)
	c.Job.State, c.Job.Reason, c.Transient = builder.Failed, reason, transient
	if !transient {
		c.Failures++
	}
	for i := range c.Job.Steps {
		switch step := &c.Job.Steps[i]; step.State {
		case builder.Running:
			step.State, step.Finished = builder.Failed, c.Job.Finished
		case builder.Pending:
			step.State = builder.Skipped
		}
	}
	j.logs.say(j.current(), reason)
}

// giveBack makes the Job one that can be claimed again at once.
func (j *job) giveBack() {
	attempt, worker := j.claim.Job.Attempt, j.claim.Job.Worker
	j.claim.Job = blank(j.stage)
	j.claim.Job.Attempt, j.claim.Job.Worker = attempt, worker
	j.claim.Job.Reason = "given back by a worker that was to end"
}

// current returns the index of the step that is or was executed last.
func (j *job) current() int {
	at := 0
	for i, s := range j.claim.Job.Steps {
		if !s.Started.IsZero() {
			at = i
		}
	}
	return at
}

// watch stops the work when the Run is cancelled, or has been decided about without this attempt.
func (j *job) watch(ctx context.Context, stop context.CancelCauseFunc) {
	for rest(ctx, min(j.w.o.Lease/4, time.Second)) {
		r, err := j.w.o.Queue.Runs.Get(ctx, j.rec.Run.ID)
		if err != nil {
			continue // unknown is not cancelled
		}
		rec, err := decode[record](r)
		if err != nil {
			continue
		}
		if rec.Cancel != nil || rec.Run.State.Ended() || rec.Done[j.stage.Name].State.Ended() {
			stop(errCancelled)
			return
		}
		// Another attempt can be seen here too, before a change of the claim would show it.
		if _, err := j.mine(ctx, nil); errors.Is(err, errStale) {
			stop(errStale)
			return
		}
	}
}

// workspace executes the steps in an empty folder that is gone afterwards.
func (j *job) workspace(ctx context.Context) (err error) {
	tier := j.w.o.Sandbox.Tier()
	if j.pipeline.Isolation == pipeline.Isolated && !tier.Isolated {
		return fmt.Errorf("the pipeline requires isolation, and worker %s offers tier %s: it lacks %v", j.w.o.Name, tier.Name, tier.Missing)
	}
	j.folder, err = os.MkdirTemp(j.w.folder, "job-")
	if err != nil {
		return transient(fmt.Errorf("workspace: %w", err))
	}
	defer func() {
		if err := os.RemoveAll(j.folder); err != nil {
			j.w.o.Log.Error(err, "a workspace is left behind", "folder", j.folder)
		}
	}()
	// Whoever the command is outside of the sandbox must get through to its workspace, and see no one else's on the way.
	err = errors.Join(os.Chmod(j.folder, 0o711), os.Mkdir(filepath.Join(j.folder, "workspace"), 0o755))
	if err != nil {
		return transient(fmt.Errorf("workspace: %w", err))
	}
	return j.steps(ctx)
}

// transientError is a failure that is not the fault of the Job's own commands: another worker, or a later time, may do.
type transientError struct{ error }

func (e *transientError) Unwrap() error { return e.error }

// transient marks err, unless its port says that another try is of no use.
func transient(err error) error {
	if err == nil || errors.Is(err, ErrRefused) {
		return err
	}
	return &transientError{err}
}
