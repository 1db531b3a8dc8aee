package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
)

// attest signs what a worker reports to have built; then, and only then, the Job has succeeded. The lease saves two Loops
// the same work; what decides is the one record that is written at the end.
func (l *Loop) attest(ctx context.Context, rec record, s pipeline.Stage, c claim) error {
	id := rec.Run.ID
	return l.holder.hold(ctx, jobKey(id, s.Name)+"/attest", func(ctx context.Context) error {
		// Somebody may have done it before the lease was had.
		now, _, err := l.load(ctx, id)
		if err != nil || now.Run.State.Ended() || now.Done[s.Name].State.Ended() {
			return err
		}
		l.o.Failpoint(FailpointReported)
		job := viewJob(rec, s, c)
		job.State, job.Reason = builder.Succeeded, ""
		images, err := accepted(rec, s, c)
		if err == nil {
			job.Images = images
			err = l.attestAll(ctx, rec, job, c)
		}
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			job.State, job.Reason, job.Images = builder.Failed, "not attested: "+err.Error(), nil
		} else if len(images) > 0 {
			l.o.Failpoint(FailpointAttested)
		}
		return l.settle(ctx, id, job)
	})
}

func (l *Loop) attestAll(ctx context.Context, rec record, job builder.Job, c claim) error {
	if len(job.Images) > 0 && l.o.Attestor == nil {
		return refuse("this server signs nothing, and what is not signed is not used: start it with a signing key")
	}
	// Times come from the report, so that signing again says the same again.
	job.Finished = c.Job.Finished
	run := rec.Run
	run.Jobs = []builder.Job{job}
	for i, image := range job.Images {
		err := l.insist(ctx, c.Job.Finished, "sign "+image.Reference(), func() error {
			return l.o.Attestor.Attest(ctx, Subject{Image: image, Run: run, Job: job.Name, Build: c.Built[i]})
		})
		if err != nil {
			return fmt.Errorf("%s: %w", image.Reference(), err)
		}
		l.say(ctx, rec.Run.ID, job.Name, job.Attempt, len(job.Steps)-1, "signed "+image.Reference())
	}
	return nil
}

// promote carries a promotion out. It has begun, and can not be cancelled any more, when the record says so.
func (l *Loop) promote(ctx context.Context, rec record, p pipeline.Pipeline, s pipeline.Stage) error {
	id := rec.Run.ID
	return l.holder.hold(ctx, jobKey(id, s.Name)+"/promote", func(ctx context.Context) error {
		now, err := l.change(ctx, id, func(rec *record) bool {
			_, begun := rec.Begun[s.Name]
			if begun || rec.Run.State.Ended() || rec.Done[s.Name].State.Ended() || rec.Cancel != nil {
				return false
			}
			if rec.Begun == nil {
				rec.Begun = map[string]time.Time{}
			}
			rec.Begun[s.Name] = l.o.Now()
			return true
		})
		since, begun := now.Begun[s.Name]
		if err != nil || !begun || now.Run.State.Ended() || now.Done[s.Name].State.Ended() {
			return err
		}
		l.o.Failpoint(FailpointBegun)
		job := viewJob(now, s, claim{})
		err = l.promoteImage(ctx, now, p, s, since, &job)
		if ctx.Err() != nil {
			return err
		}
		job.State = builder.Succeeded
		if err != nil {
			job.State, job.Reason = builder.Failed, err.Error()
		}
		job.Steps[0].State, job.Steps[0].Finished = job.State, l.o.Now()
		l.o.Failpoint(FailpointPromoted)
		return l.settle(ctx, id, job)
	})
}

func (l *Loop) promoteImage(ctx context.Context, rec record, p pipeline.Pipeline, s pipeline.Stage, since time.Time, job *builder.Job) error {
	image, err := imageFor(rec, p, s)
	if err != nil {
		return err
	}
	if l.o.Promoter == nil {
		return refuse("this server promotes nothing: start it with an environment repo")
	}
	asked := Promotion{App: s.Steps[0].With["app"], Environment: s.Environment, Image: image, Run: rec.Run}
	var done Promoted
	err = l.insist(ctx, since, "promote "+asked.App+" to "+asked.Environment, func() (err error) {
		done, err = l.o.Promoter.Promote(ctx, asked)
		if now, _, loadErr := l.load(ctx, rec.Run.ID); err != nil && loadErr == nil && now.Cancel != nil {
			err = refuse("%s while it was tried: %s", now.Cancel, err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s to %s: %w", asked.App, asked.Environment, err)
	}
	job.Promotion = &builder.Promotion{App: asked.App, Environment: asked.Environment, Commit: done.Commit, Branch: done.Branch, URL: done.URL}
	said := fmt.Sprintf("promoted %s to %s: %s", image.Reference(), asked.Environment, done.Commit)
	switch {
	case done.Held || done.Superseded:
		job.Promotion.Dropped = done.Reason
		said = fmt.Sprintf("not promoted to %s: %s", asked.Environment, done.Reason)
	case done.Branch != "":
		said = fmt.Sprintf("asked to promote %s to %s: %s %s", image.Reference(), asked.Environment, done.Branch, done.URL)
	}
	l.say(ctx, rec.Run.ID, s.Name, 1, 0, said)
	if done.Held {
		return errors.New(said)
	}
	if job.Reason = ""; done.Superseded {
		job.Reason = said
	}
	return nil
}

// insist calls do until it succeeds, is refused, or fails for longer than the patience since a time that a restart does not
// move. It returns early when ctx ends.
func (l *Loop) insist(ctx context.Context, since time.Time, what string, do func() error) error {
	if since.IsZero() {
		since = l.o.Now()
	}
	for wait := l.o.Backoff; ; wait = min(2*wait, 100*l.o.Backoff) {
		err := do()
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrRefused) || l.o.Now().Sub(since) > l.o.Patience {
			return err
		}
		l.o.Log.Info("will be tried again", "what", what, "cause", err.Error(), "wait", wait.String())
		if !rest(ctx, wait) {
			return err
		}
	}
}

// settle writes how a Job ended, unless that is decided already.
func (l *Loop) settle(ctx context.Context, id string, job builder.Job) error {
	job.Finished = l.o.Now()
	written := false
	_, err := l.change(ctx, id, func(rec *record) bool {
		written = !rec.Run.State.Ended() && !rec.Done[job.Name].State.Ended()
		if !written {
			return false
		}
		if rec.Done == nil {
			rec.Done = map[string]builder.Job{}
		}
		rec.Done[job.Name] = job
		return true
	})
	if err == nil && written {
		l.metrics.ended(map[string]builder.Job{job.Name: job})
		l.o.Failpoint(FailpointVerdict)
	}
	return err
}

// say adds a line of Slipway's own to the log of a Job. A log may lose lines.
func (l *Loop) say(ctx context.Context, id, job string, attempt, step int, text string) {
	line := builder.Log{At: l.o.Now(), Attempt: attempt, Step: max(step, 0), Stream: streamSlipway, Text: text}
	if err := l.o.Queue.Log.Append(ctx, id, job, []builder.Log{line}); err != nil && ctx.Err() == nil {
		l.o.Log.Info("a line of a log was not stored", "run", id, "job", job, "cause", err.Error())
	}
}

// streamSlipway is that of lines which no command printed.
const streamSlipway = "slipway"
