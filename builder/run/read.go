package run

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/slipway-cd/slipway/builder"
)

// holds reports whether the filter lets r through.
func holds(f builder.RunFilter, r builder.Run) bool {
	return (f.Repo == "" || f.Repo == r.Repo.Name) &&
		(f.Branch == "" || f.Branch == branch(r.Revision.Ref)) &&
		(f.Commit == "" || f.Commit == r.Revision.ID) &&
		(f.Trace == "" || f.Trace == r.Trace) &&
		(len(f.States) == 0 || slices.Contains(f.States, r.State)) &&
		(f.Digest == "" || slices.ContainsFunc(r.Jobs, func(j builder.Job) bool {
			return slices.ContainsFunc(j.Images, func(i builder.Image) bool { return i.Digest == f.Digest })
		}))
}

// Runs returns the newest Runs that the filter lets through, newest first. It reads one record for each Run that it
// passes, so a filter that few Runs pass costs time.
func (l *Loop) Runs(ctx context.Context, f builder.RunFilter) ([]builder.Run, error) {
	ids, err := l.o.Queue.RunList.Keys(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	if f.Limit <= 0 {
		f.Limit = 50
	}
	var out []builder.Run
	for _, id := range slices.Backward(ids) {
		if f.Before != "" && id >= f.Before {
			continue
		}
		r, err := l.Run(ctx, id)
		if errors.Is(err, builder.ErrNotFound) {
			continue // its time was over between the two calls
		}
		if err != nil {
			return nil, err
		}
		if holds(f, r) {
			if out = append(out, r); len(out) == f.Limit {
				break
			}
		}
	}
	return out, nil
}

// Run returns one Run; builder.ErrNotFound if there is none.
func (l *Loop) Run(ctx context.Context, id string) (builder.Run, error) {
	rec, _, err := l.load(ctx, id)
	if err != nil {
		return builder.Run{}, err
	}
	p, err := l.pipeline(rec)
	if err != nil { // a definition that an older server could read: what ended is known all the same
		rec.Run.Reason = err.Error()
		for _, j := range rec.Done {
			rec.Run.Jobs = append(rec.Run.Jobs, j)
		}
		return rec.Run, nil
	}
	claims := map[string]claim{}
	for _, s := range p.Stages {
		if rec.Run.State.Ended() || rec.Done[s.Name].State.Ended() || s.Promotes() {
			continue
		}
		if claims[s.Name], _, err = l.claim(ctx, id, s.Name); err != nil {
			return builder.Run{}, err
		}
	}
	return view(rec, p, claims), nil
}

// Logs yields the lines of a Job behind the sequence from: those that are there and, with follow, those to come until the
// Job has ended. builder.ErrNotFound if there is no such Job.
func (l *Loop) Logs(ctx context.Context, id, job string, from uint64, follow bool) iter.Seq2[builder.Log, error] {
	return func(yield func(builder.Log, error) bool) {
		ended, err := l.ended(ctx, id, job)
		if err != nil {
			yield(builder.Log{}, err)
			return
		}
		if follow && !ended {
			following, stop := context.WithCancel(ctx)
			var watch sync.WaitGroup
			defer watch.Wait()
			defer stop()
			watch.Go(func() { l.whenEnded(following, id, job, stop) })
			for line, err := range l.o.Queue.Logs.Read(following, id, job, from, true) {
				if err != nil {
					if following.Err() == nil || ctx.Err() != nil {
						yield(builder.Log{}, err)
						return
					}
					break // the Job has ended
				}
				from = line.Sequence
				if !yield(line, nil) {
					return
				}
			}
		}
		for line, err := range l.o.Queue.Logs.Read(ctx, id, job, from, false) {
			if !yield(line, err) || err != nil {
				return
			}
		}
	}
}

// whenEnded calls then when a Job has ended, and returns then or when ctx ends.
func (l *Loop) whenEnded(ctx context.Context, id, job string, then func()) {
	for rest(ctx, 250*time.Millisecond) {
		if ended, err := l.ended(ctx, id, job); ended || errors.Is(err, builder.ErrNotFound) {
			then()
			return
		}
	}
}

func (l *Loop) ended(ctx context.Context, id, job string) (bool, error) {
	rec, _, err := l.load(ctx, id)
	if err != nil {
		return false, err
	}
	p, err := l.pipeline(rec)
	if err != nil {
		return false, err
	}
	if _, ok := p.Stage(job); ok {
		return rec.Run.State.Ended() || rec.Done[job].State.Ended(), nil
	}
	return false, fmt.Errorf("run %s: job %q: %w", id, job, builder.ErrNotFound)
}
