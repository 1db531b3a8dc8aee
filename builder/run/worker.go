package run

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/pipeline"
	"github.com/slipway-cd/slipway/policy"
)

// WorkerOptions is what a Worker is made of.
type WorkerOptions struct {
	// Name of this worker on its machine.
	Name  string
	Queue WorkerQueue

	Source  Snapshots
	Sandbox Sandbox
	Images  Images // nil: Jobs that name an image or build one fail

	// Dir holds the workspaces, below a folder of the worker's name that nobody else uses.
	Dir string
	// Slots is how many Jobs are executed at a time: 2 if 0.
	Slots int
	// Lease is how long a Job waits for another worker when this one dies: at least 1 s, 15 s if 0.
	Lease time.Duration
	// Drain is how long Jobs may go on when the worker is to end; then they are given back: 30 s if 0, not at all if negative.
	Drain time.Duration
	// Limits of each command.
	Limits Limits
	// Mounts are seen by each command; what may share them is for the caller to say.
	Mounts func(r builder.Run) []Mount // may be nil
	// Path of commands: /usr/local/go/bin and the usual folders if empty.
	Path string
	// Secrets are masked in logs.
	Secrets []policy.Secret

	Now       func() time.Time
	Log       logr.Logger
	Metrics   prometheus.Registerer // may be nil
	Failpoint func(name string)     // may be nil
}

// Worker executes Jobs. Any number of them, on any machines, may work on one queue.
type Worker struct {
	o       WorkerOptions
	metrics *workerMetrics
	holder  holder
	mask    policy.Mask
	folder  string
}

// NewWorker checks the options.
func NewWorker(o WorkerOptions) (*Worker, error) {
	if o.Source == nil || o.Sandbox == nil || o.Now == nil || o.Queue.Jobs == nil || o.Dir == "" {
		return nil, errors.New("worker: source, sandbox, clock, queue and folder are needed")
	}
	o.Name = cmp.Or(o.Name, "worker")
	if filepath.Base(o.Name) != o.Name {
		return nil, fmt.Errorf("worker %q: the name is used for a folder", o.Name)
	}
	o.Slots, o.Lease, o.Drain = cmp.Or(o.Slots, 2), cmp.Or(o.Lease, 15*time.Second), cmp.Or(o.Drain, 30*time.Second)
	o.Path = cmp.Or(o.Path, "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if o.Lease < time.Second {
		return nil, fmt.Errorf("worker: lease of %s: the queue counts in seconds, from one on", o.Lease)
	}
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	metrics, err := newWorkerMetrics(o.Metrics)
	if err != nil {
		return nil, err
	}
	unique := o.Name + "-" + rand.Text()[:6]
	return &Worker{
		o: o, metrics: metrics, mask: policy.NewMask(o.Secrets), folder: filepath.Join(dir, o.Name),
		holder: holder{leases: o.Queue.Leases, name: unique, ttl: o.Lease, log: o.Log},
	}, nil
}

// Serve claims and executes Jobs until ctx ends, then lets those under way go on for the time that Options.Drain gives, and
// returns when nothing of them is left.
func (w *Worker) Serve(ctx context.Context) error {
	unlock, err := w.prepare()
	if err != nil {
		return err
	}
	defer unlock()
	jobs, give := context.WithCancelCause(context.WithoutCancel(ctx))
	defer give(nil)
	var all, drain sync.WaitGroup
	idle := make(chan struct{})
	drain.Go(func() {
		select {
		case <-idle:
			return
		case <-ctx.Done():
		}
		select {
		case <-idle:
		case <-time.After(max(w.o.Drain, 0)):
			give(errDrained)
		}
	})
	for range w.o.Slots {
		all.Go(func() {
			for ctx.Err() == nil {
				key, done, err := w.o.Queue.Hints.Next(ctx)
				if err != nil {
					rest(ctx, 100*time.Millisecond)
					continue
				}
				w.take(jobs, key, done)
			}
		})
	}
	all.Wait()
	close(idle)
	drain.Wait()
	return ctx.Err()
}

// prepare takes the worker's folder for this process and removes what a former one left in it.
func (w *Worker) prepare() (func(), error) {
	if err := os.MkdirAll(w.folder, 0o711); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	f, err := os.OpenFile(w.folder+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	unlock := func() { _ = f.Close() }
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		unlock()
		return nil, fmt.Errorf("worker %s: its folder %s is in use by another process: give each worker a name of its own", w.o.Name, w.folder)
	}
	left, err := os.ReadDir(w.folder)
	for _, e := range left {
		err = errors.Join(err, os.RemoveAll(filepath.Join(w.folder, e.Name())))
	}
	if err != nil {
		unlock()
		return nil, fmt.Errorf("worker %s: %w", w.o.Name, err)
	}
	return unlock, nil
}

// Why a Job is stopped that has not ended by itself.
var (
	errDrained   = errors.New("the worker is to end")
	errStale     = errors.New("another attempt has taken its place")
	errCancelled = errors.New("the run was cancelled")
	errTimeout   = errors.New("timed out")
)

// take follows a hint. done is called as soon as no other worker should follow it.
func (w *Worker) take(ctx context.Context, key string, done func()) {
	j, err := w.find(ctx, key)
	if err != nil {
		w.o.Log.Error(err, "a hint cannot be followed", "key", key)
		return // it comes again
	}
	if j == nil {
		done()
		return
	}
	err = w.holder.hold(ctx, leaseKey(j.rec.Run.ID, j.stage.Name, j.claim.Job.Attempt), func(ctx context.Context) error {
		w.o.Failpoint(FailpointLease)
		if err := j.acquire(ctx); err != nil {
			return err
		}
		done()
		w.o.Failpoint(FailpointClaim)
		w.metrics.running.Inc()
		defer w.metrics.running.Dec()
		err := j.execute(ctx)
		w.o.Failpoint(FailpointReport)
		return err
	})
	switch {
	case err == nil:
	case errors.Is(err, errLeaseLost):
		w.metrics.lost.Inc()
		w.o.Log.Error(err, "a job was stopped", "run", j.rec.Run.ID, "job", j.stage.Name, "attempt", j.claim.Job.Attempt)
	case errors.Is(err, errCancelled), errors.Is(err, errStale):
		w.o.Log.Info("a job was stopped", "run", j.rec.Run.ID, "job", j.stage.Name, "attempt", j.claim.Job.Attempt, "cause", err.Error())
	case errors.Is(err, builder.ErrConflict):
		done() // somebody else has it
	default:
		w.o.Log.Error(err, "a job ended without a report", "run", j.rec.Run.ID, "job", j.stage.Name, "attempt", j.claim.Job.Attempt)
	}
}

// find returns the Job of a hint if it may be claimed, nil if not.
func (w *Worker) find(ctx context.Context, key string) (*job, error) {
	id, name := splitKey(key)
	r, err := w.o.Queue.Runs.Get(ctx, id)
	if errors.Is(err, builder.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rec, err := decode[record](r)
	if err != nil {
		return nil, err
	}
	if rec.Run.State.Ended() || rec.Cancel != nil || rec.Done[name].State.Ended() {
		return nil, nil
	}
	p, err := pipeline.Parse(rec.Pipeline)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", id, err)
	}
	stage, ok := p.Stage(name)
	if !ok || stage.Promotes() {
		return nil, nil
	}
	for _, need := range stage.Needs {
		if rec.Done[need].State != builder.Succeeded {
			return nil, nil
		}
	}
	c, revision, err := readClaim(ctx, w.o.Queue.Jobs, id, name)
	if err != nil || c.Job.State != builder.Pending || w.o.Now().Before(c.NotBefore) {
		return nil, err
	}
	c.Job = w.claimed(stage, c.Job.Attempt+1)
	return &job{w: w, rec: rec, pipeline: p, stage: stage, claim: c, revision: revision, key: jobKey(id, name)}, nil
}

// claimed is the Job as this worker begins it.
func (w *Worker) claimed(s pipeline.Stage, attempt int) builder.Job {
	j := blank(s)
	tier := w.o.Sandbox.Tier()
	j.State, j.Attempt, j.Worker, j.Started = builder.Running, attempt, w.holder.name, w.o.Now()
	j.Tier, j.Missing = tier.Name, tier.Missing
	return j
}
