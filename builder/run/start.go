package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
	"github.com/slipway-cd/slipway/gitsource"
)

// The file that says what is to be done, and how large it may be.
const (
	definition      = pipeline.Path
	definitionBytes = 256 << 10 // the record of a Run holds it
)

// start makes the Run of a Delivery, if there is to be one. An error has the Delivery come again.
func (l *Loop) start(ctx context.Context, d builder.Delivery) error {
	id := deliveredID(d)
	if _, err := l.o.Queue.Runs.Get(ctx, id); !errors.Is(err, builder.ErrNotFound) {
		return err // it is there, or nobody knows
	}
	rec := record{Run: builder.Run{
		ID: id, Repo: d.Repo, Revision: d.Revision, Trace: traceOf(id), Created: d.ReceivedAt,
		Trigger: builder.Trigger{Kind: "push", Actor: d.Actor, Delivery: d.ID, ReceivedAt: d.ReceivedAt},
	}}
	wanted, err := l.define(ctx, &rec)
	if err != nil {
		if l.o.Now().Sub(d.ReceivedAt) < l.o.Patience && !errors.Is(err, ErrRefused) && !errors.Is(err, gitsource.ErrNotFound) {
			return fmt.Errorf("run %s: %w", id, err)
		}
		wanted = true
		l.fail(&rec, err.Error())
	}
	if !wanted {
		l.o.Log.Info("a push starts no run", "repo", d.Repo.Name, "ref", d.Revision.Ref, "commit", d.Revision.ID, "delivery", d.ID)
		return nil
	}
	l.o.Failpoint(FailpointDelivery)
	if err := l.create(ctx, rec); err != nil {
		return err
	}
	l.o.Failpoint(FailpointRecord)
	return nil
}

func (l *Loop) create(ctx context.Context, rec record) error {
	text, err := encode(rec)
	if err != nil {
		return err
	}
	_, err = l.o.Queue.Runs.Put(ctx, rec.Run.ID, text, 0)
	if err != nil && !errors.Is(err, builder.ErrConflict) { // else another one has made it meanwhile, the same
		return fmt.Errorf("run %s: %w", rec.Run.ID, err)
	}
	if l.note(rec.Run.ID, rec) {
		l.turns.add(rec.Run.ID)
	}
	return nil
}

// fail has a Run end before it began.
func (l *Loop) fail(rec *record, reason string) {
	rec.Run.State, rec.Run.Reason, rec.Run.Finished = builder.Failed, reason, l.o.Now()
	l.metrics.finished.WithLabelValues(builder.Failed.String()).Inc()
}

// define reads what is to be done at the Revision. It returns false where nothing is: no file, or another branch.
func (l *Loop) define(ctx context.Context, rec *record) (bool, error) {
	name := branch(rec.Run.Revision.Ref)
	if name == "" {
		return false, nil
	}
	snapshot, err := l.o.Source.Snapshot(ctx, rec.Run.Repo, rec.Run.Revision)
	if err != nil {
		return false, fmt.Errorf("%s at %s: %w", rec.Run.Repo.Name, rec.Run.Revision.ID.Short(), err)
	}
	text, err := read(snapshot.Tree)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", definition, err)
	}
	p, err := pipeline.Parse(text)
	if err != nil {
		l.fail(rec, err.Error()) // whether the branch is one of its own is not known of a file that cannot be read
		return true, nil
	}
	rec.Run.Pipeline, rec.Pipeline = p.Name, text
	if !p.Triggered(name) {
		return false, nil
	}
	rec.Committed, err = l.o.Source.Committed(ctx, rec.Run.Repo, rec.Run.Revision)
	if err != nil {
		return false, fmt.Errorf("%s at %s: %w", rec.Run.Repo.Name, rec.Run.Revision.ID.Short(), err)
	}
	return true, nil
}

func read(tree gitsource.Tree) ([]byte, error) {
	e, err := tree.Entry(definition)
	if err != nil {
		return nil, err
	}
	switch e.Kind {
	case gitsource.Absent:
		return nil, fs.ErrNotExist
	case gitsource.File, gitsource.Executable:
	default:
		return nil, refuse("not a file")
	}
	if e.Size > definitionBytes {
		return nil, refuse("%d bytes, at most %d are read", e.Size, definitionBytes)
	}
	return tree.ReadFile(definition)
}

// Cancel ends a Run: what has not begun never does, what runs is stopped. A promotion that is under way ends by itself,
// since it may have reached Git. A Run that has ended stays as it is.
func (l *Loop) Cancel(ctx context.Context, id, by, reason string) error {
	_, err := l.change(ctx, id, func(rec *record) bool {
		if rec.Run.State.Ended() || rec.Cancel != nil {
			return false
		}
		rec.Cancel = &cancel{By: by, Reason: reason, At: l.o.Now()}
		return true
	})
	if err == nil {
		l.wake(id)
	}
	return err
}

// Retry makes a new Run for the same Revision, with the definition read again.
func (l *Loop) Retry(ctx context.Context, id, by string) (builder.Run, error) {
	old, _, err := l.load(ctx, id)
	if err != nil {
		return builder.Run{}, err
	}
	now := l.o.Now()
	fresh := freshID(now)
	rec := record{Run: builder.Run{
		ID: fresh, Repo: old.Run.Repo, Revision: old.Run.Revision, Trace: traceOf(fresh), Created: now,
		Trigger: builder.Trigger{Kind: "retry", Actor: by, Delivery: id, ReceivedAt: now},
	}}
	wanted, err := l.define(ctx, &rec)
	if err != nil {
		return builder.Run{}, fmt.Errorf("retry of run %s: %w", id, err)
	}
	if !wanted {
		return builder.Run{}, refuse("retry of run %s: %s at %s runs nothing for %s", id, definition, old.Run.Revision.ID.Short(), old.Run.Revision.Ref)
	}
	if err := l.create(ctx, rec); err != nil {
		return builder.Run{}, err
	}
	return l.Run(ctx, fresh)
}

// load reads the record of a Run.
func (l *Loop) load(ctx context.Context, id string) (record, uint64, error) {
	r, err := l.o.Queue.Runs.Get(ctx, id)
	if err != nil {
		return record{}, 0, fmt.Errorf("run %s: %w", id, err)
	}
	rec, err := decode[record](r)
	return rec, r.Revision, err
}

// change applies mutate to the newest record of a Run until it is stored or mutate returns false, which must depend on the
// record alone. It returns the record as it stands.
func (l *Loop) change(ctx context.Context, id string, mutate func(*record) bool) (record, error) {
	for {
		rec, revision, err := l.load(ctx, id)
		if err != nil {
			return record{}, err
		}
		if !mutate(&rec) {
			return rec, nil
		}
		text, err := encode(rec)
		if err != nil {
			return record{}, err
		}
		if _, err := l.o.Queue.Runs.Put(ctx, id, text, revision); err == nil {
			return rec, nil
		} else if !errors.Is(err, builder.ErrConflict) || !rest(ctx, 5*time.Millisecond) {
			return record{}, fmt.Errorf("run %s: %w", id, err)
		}
	}
}
