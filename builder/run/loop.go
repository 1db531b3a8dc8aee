package run

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
)

// Options is what a Loop is made of.
type Options struct {
	// Name of this server, in leases and logs. It need not be unique.
	Name  string
	Queue Queue

	Source   Source
	Attestor Attestor // nil: Jobs that build images fail
	Promoter Promoter // nil: Jobs that promote fail
	Statuses Statuses // nil: nobody is told

	Lease time.Duration // of attesting and promoting; at least 1 s, 15 s if 0
	Sweep time.Duration // how often everything is looked at without a reason: 5 s if 0
	// Lost is how often a Job is handed out again because its worker or its tools, not its commands, failed: 3 if 0.
	Lost int
	// Window is how many Jobs workers hear of at a time: 64 if 0.
	Window int
	// Patience is for how long a port that fails is asked again before the Job fails: 15 minutes if 0.
	Patience time.Duration
	// Backoff is the first wait between two tries, doubled up to 100 times itself: 200 ms if 0.
	Backoff time.Duration

	Now       func() time.Time
	Log       logr.Logger
	Metrics   prometheus.Registerer // may be nil
	Failpoint func(name string)     // may be nil
}

// Loop carries Runs out on the server. Several may work on one queue at the same time.
type Loop struct {
	o       Options
	metrics *loopMetrics
	turns   *turns
	hints   *dispatcher
	holder  holder

	mu     sync.Mutex
	active map[string]*active
	tasks  map[string]bool // that run now
	done   sync.WaitGroup  // of tasks

	attesting, promoting chan struct{} // slots
}

// active is a Run that has not ended, or of whose end the Git host does not know yet.
type active struct {
	state    builder.State
	pipeline pipeline.Pipeline // without stages until it was read
}

// NewLoop checks the options.
func NewLoop(o Options) (*Loop, error) {
	if o.Source == nil || o.Now == nil || o.Queue.Runs == nil {
		return nil, errors.New("run loop: source, clock and queue are needed")
	}
	o.Name = cmp.Or(o.Name, "server")
	o.Lease, o.Sweep = cmp.Or(o.Lease, 15*time.Second), cmp.Or(o.Sweep, 5*time.Second)
	o.Lost, o.Window = cmp.Or(o.Lost, 3), cmp.Or(o.Window, 64)
	o.Patience, o.Backoff = cmp.Or(o.Patience, 15*time.Minute), cmp.Or(o.Backoff, 200*time.Millisecond)
	if o.Lease < time.Second {
		return nil, fmt.Errorf("run loop: lease of %s: the queue counts in seconds, from one on", o.Lease)
	}
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
	l := &Loop{
		o: o, turns: newTurns(), hints: newDispatcher(o.Window, max(2*o.Sweep, time.Second)),
		active: map[string]*active{}, tasks: map[string]bool{},
		attesting: make(chan struct{}, 16), promoting: make(chan struct{}, 256),
		holder: holder{leases: o.Queue.Leases, name: o.Name + "-" + rand.Text()[:8], ttl: o.Lease, log: o.Log},
	}
	var err error
	l.metrics, err = newLoopMetrics(o.Metrics, l.count)
	return l, err
}

// Parallel work of one Loop: nothing of it waits for anything but the queue and, for deliveries, the Git host.
const (
	deciders   = 8
	deliverers = 8
)

// Serve works until ctx ends, and returns when nothing of it is under way any more.
func (l *Loop) Serve(ctx context.Context) error {
	var all sync.WaitGroup
	for _, part := range []func(context.Context){l.watchRuns, l.watchJobs, l.watchLeases, l.sweep, l.deliveries} {
		all.Go(func() { part(ctx) })
	}
	for range deciders {
		all.Go(func() { l.turns.take(ctx, func(id string) { l.step(ctx, id) }) })
	}
	all.Wait()
	l.done.Wait()
	return ctx.Err()
}

// Deliver stores a push before its sender gets an answer. One that is known already changes nothing.
func (l *Loop) Deliver(ctx context.Context, d builder.Delivery) error {
	if d.ReceivedAt.IsZero() {
		d.ReceivedAt = l.o.Now()
	}
	return l.o.Queue.Deliveries.Store(ctx, d)
}

// step decides about one Run and asks for another turn when that failed.
func (l *Loop) step(ctx context.Context, id string) {
	err := l.advance(ctx, id)
	if err == nil || ctx.Err() != nil {
		return
	}
	if !errors.Is(err, builder.ErrConflict) {
		l.o.Log.Error(err, "a run waits for another try", "run", id)
		l.turns.addAfter(id, time.Second)
		return
	}
	l.turns.add(id)
}

// watchRuns keeps the set of active Runs, which is all that this process remembers.
func (l *Loop) watchRuns(ctx context.Context) {
	forever(ctx, l.o.Log, l.o.Queue.RunList.Watch, func(r builder.Record) {
		rec, err := decode[record](r)
		if err != nil {
			l.o.Log.Error(err, "a run cannot be read and is left alone", "run", r.Key)
			return
		}
		if l.note(r.Key, rec) {
			l.turns.add(r.Key)
		} else {
			l.publish(ctx) // another Loop may have ended it: what it had of the window is free
		}
	})
}

// note remembers a Run as active or forgets it, and reports whether it is.
func (l *Loop) note(id string, rec record) bool {
	on := !rec.Run.State.Ended() || l.untold(rec)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !on {
		delete(l.active, id)
		l.turns.forget(id)
		l.hints.set(id, rec.Run.Repo.Name, nil)
		return false
	}
	if l.active[id] == nil {
		l.active[id] = &active{}
	}
	l.active[id].state = rec.Run.State
	return true
}

func (l *Loop) count(state builder.State) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, a := range l.active {
		if a.state == state {
			n++
		}
	}
	return float64(n)
}

func (l *Loop) watchJobs(ctx context.Context) {
	forever(ctx, l.o.Log, l.o.Queue.JobList.Changes, func(r builder.Record) { l.wake(r.Key) })
}

func (l *Loop) watchLeases(ctx context.Context) {
	forever(ctx, l.o.Log, l.o.Queue.Owners.Ended, l.wake)
}

// wake has the Run of a key looked at, if it is one to look at.
func (l *Loop) wake(key string) {
	id, _ := splitKey(key)
	l.mu.Lock()
	known := l.active[id] != nil
	l.mu.Unlock()
	if known {
		l.turns.add(id)
	}
}

// sweep looks at everything once in a while: whatever was missed is found then.
func (l *Loop) sweep(ctx context.Context) {
	tick := time.NewTicker(l.o.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.mu.Lock()
		ids := make([]string, 0, len(l.active))
		for id := range l.active {
			ids = append(ids, id)
		}
		l.mu.Unlock()
		for _, id := range ids {
			l.turns.add(id)
		}
		l.publish(ctx)
	}
}

func (l *Loop) deliveries(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.o.Queue.Deliveries.Consume(ctx, deliverers, l.start); err != nil && ctx.Err() == nil {
			l.o.Log.Error(err, "deliveries are not read")
			rest(ctx, time.Second)
		}
	}
}

// task runs do apart, unless it runs already under this name.
func (l *Loop) task(ctx context.Context, name string, slots chan struct{}, do func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tasks[name] || ctx.Err() != nil {
		return
	}
	l.tasks[name] = true
	l.done.Go(func() {
		defer func() {
			l.mu.Lock()
			delete(l.tasks, name)
			l.mu.Unlock()
		}()
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return
		}
		err := do(ctx)
		id, _ := splitKey(name)
		switch {
		case err == nil:
			l.turns.add(id)
		case ctx.Err() == nil && !errors.Is(err, builder.ErrConflict): // who holds the lease will be seen to end it
			l.o.Log.Error(err, "a task of a run failed and will be tried again", "task", name)
		}
	})
}

// forever goes through a watch, and again when it ends before ctx does.
func forever[T any](ctx context.Context, log logr.Logger, watch func(context.Context) iter.Seq2[T, error], each func(T)) {
	for ctx.Err() == nil {
		for v, err := range watch(ctx) {
			if err != nil {
				if ctx.Err() == nil {
					log.Error(err, "a watch broke and is begun again")
				}
				break
			}
			each(v)
		}
		rest(ctx, 200*time.Millisecond)
	}
}

// rest waits, and reports false when ctx ended meanwhile.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// branch returns the branch of a ref, empty if it is none.
func branch(ref string) string {
	name, ok := strings.CutPrefix(ref, "refs/heads/")
	if !ok {
		return ""
	}
	return name
}
