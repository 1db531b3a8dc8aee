package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
)

// advance looks at a Run as it stands, decides what is next and begins it. It may be called at any time and any number of
// times, by several Loops at once: builder.ErrConflict asks for another look.
func (l *Loop) advance(ctx context.Context, id string) error {
	rec, revision, err := l.load(ctx, id)
	if err != nil {
		return err
	}
	if rec.Run.State.Ended() {
		l.tell(ctx, rec)
		return nil
	}
	f, err := l.facts(ctx, rec)
	if err != nil {
		return err
	}
	d := next(f)
	if len(d.verdicts) > 0 || d.state != rec.Run.State {
		if rec, err = l.conclude(ctx, rec, revision, f, d); err != nil {
			return err
		}
		l.tell(ctx, rec)
	}
	if rec.Run.State.Ended() {
		l.publish(ctx) // what it had of the window is free
		return nil
	}
	if err := l.requeue(ctx, rec, f, d); err != nil {
		return err
	}
	return l.begin(ctx, rec, f, d)
}

// facts gathers what a decision rests on. An error means that too little is known for one.
func (l *Loop) facts(ctx context.Context, rec record) (facts, error) {
	p, err := l.pipeline(rec)
	if err != nil {
		return facts{}, err
	}
	f := facts{record: rec, pipeline: p, claims: map[string]claim{}, revisions: map[string]uint64{}, orphan: map[string]bool{}, now: l.o.Now(), lost: l.o.Lost}
	for _, s := range p.Stages {
		if rec.Done[s.Name].State.Ended() || s.Promotes() {
			continue
		}
		c, revision, err := l.claim(ctx, rec.Run.ID, s.Name)
		if err != nil {
			return facts{}, err
		}
		if c.Job.State == builder.Running {
			held, err := l.o.Queue.Owners.Held(ctx, leaseKey(rec.Run.ID, s.Name, c.Job.Attempt))
			if err != nil {
				l.o.Log.Error(err, "it is not known whether a job has an owner", "run", rec.Run.ID, "job", s.Name)
			} else if !held {
				// An owner has the lease before it claims and until it has reported: only if the claim still stands has it none.
				before := revision
				if c, revision, err = l.claim(ctx, rec.Run.ID, s.Name); err != nil {
					return facts{}, err
				}
				f.orphan[s.Name] = revision == before
			}
		}
		f.claims[s.Name], f.revisions[s.Name] = c, revision
	}
	return f, nil
}

// pipeline reads the definition of an active Run once.
func (l *Loop) pipeline(rec record) (pipeline.Pipeline, error) {
	l.mu.Lock()
	a := l.active[rec.Run.ID]
	if a != nil && len(a.pipeline.Stages) > 0 {
		defer l.mu.Unlock()
		return a.pipeline, nil
	}
	l.mu.Unlock()
	if len(rec.Pipeline) == 0 {
		return pipeline.Pipeline{}, nil // it could not be read, and the Run has failed for that
	}
	p, err := pipeline.Parse(rec.Pipeline)
	if err != nil {
		return p, fmt.Errorf("run %s: %s was read before and cannot be any more: %w", rec.Run.ID, pipeline.Path, err)
	}
	if a != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		a.pipeline = p
	}
	return p, nil
}

// claim reads that of a Job; the zero claim at revision 0 if nobody has made one.
func (l *Loop) claim(ctx context.Context, id, job string) (claim, uint64, error) {
	return readClaim(ctx, l.o.Queue.Jobs, id, job)
}

func readClaim(ctx context.Context, jobs Table, id, job string) (claim, uint64, error) {
	r, err := jobs.Get(ctx, jobKey(id, job))
	if errors.Is(err, builder.ErrNotFound) {
		return claim{}, 0, nil
	}
	if err != nil {
		return claim{}, 0, err
	}
	c, err := decode[claim](r)
	return c, r.Revision, err
}

// conclude writes verdicts and the state of the Run in one change, so that no one sees the one without the other.
func (l *Loop) conclude(ctx context.Context, rec record, revision uint64, f facts, d decision) (record, error) {
	before := rec.Run.State
	done := maps.Clone(rec.Done)
	if done == nil {
		done = map[string]builder.Job{}
	}
	maps.Copy(done, d.verdicts)
	rec.Done, rec.Run.State, rec.Run.Reason = done, d.state, d.reason
	if d.state.Ended() {
		rec.Run.Finished = f.now
		l.o.Failpoint(FailpointLast)
	}
	text, err := encode(rec)
	if err != nil {
		return rec, err
	}
	if _, err := l.o.Queue.Runs.Put(ctx, rec.Run.ID, text, revision); err != nil {
		return rec, fmt.Errorf("run %s: %w", rec.Run.ID, err)
	}
	// From here on this is the one Loop that has seen the change made.
	l.note(rec.Run.ID, rec)
	l.metrics.ended(d.verdicts)
	if before == builder.Pending && len(f.claims) > 0 {
		l.metrics.began(rec.Run.Trigger.ReceivedAt, f.claims)
	}
	if d.state.Ended() {
		l.metrics.finished.WithLabelValues(d.state.String()).Inc()
		l.o.Log.Info("a run ended", "run", rec.Run.ID, "repo", rec.Run.Repo.Name, "state", d.state.String(), "reason", d.reason)
		l.o.Failpoint(FailpointFinished)
	} else if len(d.verdicts) > 0 {
		l.o.Failpoint(FailpointVerdict)
	}
	return rec, nil
}

// requeue makes claims free again, if they are still what the decision was made on: an owner that reported meanwhile, and
// only then gave up its lease, is heard.
func (l *Loop) requeue(ctx context.Context, rec record, f facts, d decision) error {
	for job, c := range d.requeue {
		text, err := encode(c)
		if err != nil {
			return err
		}
		if _, err := l.o.Queue.Jobs.Put(ctx, jobKey(rec.Run.ID, job), text, f.revisions[job]); err != nil {
			return err
		}
		if f.orphan[job] {
			l.metrics.orphans.Inc()
			l.o.Log.Info("a job lost its worker and is handed out again", "run", rec.Run.ID, "job", job, "attempt", c.Job.Attempt, "worker", c.Job.Worker)
		}
		l.say(ctx, rec.Run.ID, job, c.Job.Attempt, 0, c.Job.Reason)
		l.o.Failpoint(FailpointRequeue)
	}
	return nil
}

// begin starts what d names. None of it is waited for.
func (l *Loop) begin(ctx context.Context, rec record, f facts, d decision) error {
	for _, s := range f.pipeline.Stages {
		switch {
		case slices.Contains(d.attest, s.Name):
			c := f.claims[s.Name]
			l.task(ctx, jobKey(rec.Run.ID, s.Name), l.attesting, func(ctx context.Context) error { return l.attest(ctx, rec, s, c) })
		case slices.Contains(d.promote, s.Name):
			l.task(ctx, jobKey(rec.Run.ID, s.Name), l.promoting, func(ctx context.Context) error { return l.promote(ctx, rec, f.pipeline, s) })
		}
	}
	if len(d.hint) > 0 {
		l.o.Failpoint(FailpointHint)
	}
	ready := map[string]int{}
	for _, job := range d.hint {
		ready[job] = f.claims[job].Job.Attempt
	}
	l.hints.set(rec.Run.ID, rec.Run.Repo.Name, ready)
	l.publish(ctx)
	if !d.wake.IsZero() {
		l.turns.addAfter(rec.Run.ID, max(d.wake.Sub(l.o.Now()), 10*time.Millisecond))
	}
	return nil
}

// publish gives the hints whose turn it is. One that is lost is given again.
func (l *Loop) publish(ctx context.Context) {
	for _, key := range l.hints.pick(time.Now()) {
		if err := l.o.Queue.Hints.Publish(ctx, key); err != nil {
			l.hints.failed(key)
		}
	}
}

// untold reports whether the Git host is to hear of the Run's state, and could still care.
func (l *Loop) untold(rec record) bool {
	return l.o.Statuses != nil && rec.Told != rec.Run.State && (rec.Run.Finished.IsZero() || l.o.Now().Sub(rec.Run.Finished) < l.o.Patience)
}

// tell shows the Run's state on the Git host, once each if nothing dies in between.
func (l *Loop) tell(ctx context.Context, rec record) {
	if !l.untold(rec) {
		l.note(rec.Run.ID, rec)
		return
	}
	l.task(ctx, rec.Run.ID+"/ status", l.attesting, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		shown, err := l.Run(ctx, rec.Run.ID)
		if err != nil {
			return err
		}
		if err := l.o.Statuses.Status(ctx, shown); err != nil {
			return fmt.Errorf("status of run %s: %w", rec.Run.ID, err)
		}
		_, err = l.change(ctx, rec.Run.ID, func(rec *record) bool {
			told := rec.Told != shown.State
			rec.Told = shown.State
			return told
		})
		return err
	})
}
