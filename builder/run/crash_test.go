package run

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder"
)

// once checks what was seen from outside, over all processes: nothing twice, nothing unsigned.
func (w *world) once(runs ...builder.Run) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.promoted) != len(runs) {
		w.t.Errorf("%d promotions of %d runs: %v", len(w.promoted), len(runs), w.promoted)
	}
	if len(w.built) != len(runs) || len(w.attested) != len(runs) {
		w.t.Errorf("%d runs, built %v, attested %v", len(runs), w.built, w.attested)
	}
}

// TestWorkerDies: at each point of a Job's life a worker is killed, and another finishes what it left.
func TestWorkerDies(t *testing.T) {
	t.Parallel()
	for _, at := range []string{
		FailpointLease, FailpointClaim, FailpointCheckout, FailpointRun, FailpointStep, FailpointBuild, FailpointPush, FailpointReport,
	} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newMortalWorld(t)
			loop := w.startLoop()
			victim := w.startWorker(func(p *process, o *WorkerOptions) { o.Failpoint, o.Slots = p.at(at), 1 })
			d := push(w.commit(1, shopPipeline))
			if err := loop.loop.Deliver(within(t), d); err != nil {
				t.Fatal(err)
			}
			select {
			case <-victim.dead:
			case <-within(t).Done():
				t.Fatal("never came to " + at)
			}
			w.startWorker()
			r := w.ends(loop, d)
			w.good(r)
			w.once(r)
			eventually(t, func() (bool, any) { return w.leases(loop, r) == nil, w.leases(loop, r) })
		})
	}
}

// leases returns an error as long as a lease of the Run's attempts is held.
func (w *world) leases(p *process, r builder.Run) error {
	var errs []error
	for _, j := range r.Jobs {
		for attempt := range j.Attempt {
			held, err := p.q.Leases.Held(w.t.Context(), leaseKey(r.ID, j.Name, attempt+1))
			if held {
				err = fmt.Errorf("%s, attempt %d", j.Name, attempt+1)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// TestServerDies: between each pair of changes the Loop is killed, and a new one on the same queue goes on.
func TestServerDies(t *testing.T) {
	t.Parallel()
	for _, at := range []string{
		FailpointDelivery, FailpointRecord, FailpointHint, FailpointReported, FailpointAttested, FailpointVerdict,
		FailpointBegun, FailpointPromoted, FailpointLast, FailpointFinished,
	} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newMortalWorld(t)
			victim := w.startLoop(func(p *process, o *Options) { o.Failpoint = p.at(at) })
			w.startWorker()
			d := push(w.commit(1, shopPipeline))
			if err := victim.loop.Deliver(within(t), d); err != nil {
				t.Fatal(err)
			}
			select {
			case <-victim.dead:
			case <-within(t).Done():
				t.Fatal("never came to " + at)
			}
			loop := w.startLoop()
			r := w.ends(loop, d)
			w.good(r)
			w.once(r)
			eventually(t, func() (bool, any) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return slices.Contains(w.statuses, builder.Succeeded), fmt.Sprint(w.statuses)
			})
		})
	}
}

// TestServerDiesWhileItHandsOutAgain: first the worker dies, then the Loop that has noticed.
func TestServerDiesWhileItHandsOutAgain(t *testing.T) {
	t.Parallel()
	w := newMortalWorld(t)
	victim := w.startLoop(func(p *process, o *Options) { o.Failpoint = p.at(FailpointRequeue) })
	w.startWorker(func(p *process, o *WorkerOptions) { o.Failpoint = p.at(FailpointClaim) })
	d := push(w.commit(1, shopPipeline))
	if err := victim.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	select {
	case <-victim.dead:
	case <-within(t).Done():
		t.Fatal("nothing was handed out again")
	}
	loop := w.startLoop()
	w.startWorker()
	r := w.ends(loop, d)
	w.good(r)
	w.once(r)
}

// TestWorkersKeepDying: a Job that kills its worker does not go round for ever.
func TestWorkersKeepDying(t *testing.T) {
	t.Parallel()
	w := newMortalWorld(t)
	loop := w.startLoop(func(_ *process, o *Options) { o.Lost = 1 })
	for range 2 {
		w.startWorker(func(p *process, o *WorkerOptions) { o.Failpoint, o.Slots = p.at(FailpointRun), 1 })
	}
	d := push(w.commit(1, shopPipeline))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	r := w.ends(loop, d)
	if r.State != builder.Failed || r.Jobs[0].Attempt != 2 || r.Jobs[1].State != builder.Skipped {
		t.Errorf("%+v", r)
	}
}

// TestTwoLoops: they do the same work at the same time, and it is done once.
func TestTwoLoops(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.startLoop(), w.startLoop()
	w.startWorker()
	w.startWorker()
	const n = 12
	var all []builder.Delivery
	var sending sync.WaitGroup
	for i := range n {
		d := push(w.commit(i+1, shopPipeline))
		all = append(all, d)
		for _, p := range []*process{a, b, a} { // each delivery comes three times, by two ways
			sending.Go(func() {
				if err := p.loop.Deliver(within(t), d); err != nil {
					t.Error(err)
				}
			})
		}
	}
	sending.Wait()
	var runs []builder.Run
	for _, d := range all {
		r := w.ends(b, d)
		w.good(r)
		runs = append(runs, r)
	}
	w.once(runs...)
	for _, p := range []*process{a, b} {
		if listed, err := p.loop.Runs(within(t), builder.RunFilter{}); err != nil || len(listed) != n {
			t.Errorf("%d runs: %v", len(listed), err)
		}
	}
	// A replay after everything has ended.
	for _, d := range all {
		d.ReceivedAt = time.Now()
		if err := a.loop.Deliver(within(t), d); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() (bool, any) {
		waiting, err := w.waiting(a)
		return err == nil && waiting == 0, waiting
	})
	if listed, err := a.loop.Runs(within(t), builder.RunFilter{}); err != nil || len(listed) != n {
		t.Errorf("%d runs after a replay: %v", len(listed), err)
	}
}

// TestQueueRestartsWhileAJobRuns: the Job goes on, and its worker reports to the server that came back.
func TestQueueRestartsWhileAJobRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop()
	w.startWorker()
	d := push(w.commit(1, fmt.Sprintf(gated, "1h")))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	gate := w.gate("slow")
	<-gate.reached
	w.server.Close()
	w.serve()
	gate.unlock()
	r := w.ends(loop, d)
	if r.State != builder.Succeeded || r.Jobs[0].Attempt != 1 || len(gate.killed) > 0 {
		t.Errorf("%+v", r)
	}
}

// TestLeaseThatCannotBeExtended: the worker kills the Job before anybody else can have it.
func TestLeaseThatCannotBeExtended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lease = 2 * time.Second
	loop := w.startLoop()
	w.startWorker()
	d := push(w.commit(1, fmt.Sprintf(gated, "1h")))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	gate := w.gate("slow")
	<-gate.reached
	away := time.Now()
	w.server.Close()
	select {
	case <-gate.killed:
	case <-within(t).Done():
		t.Fatal("the job went on without a lease")
	}
	if took := time.Since(away); took > w.lease {
		t.Errorf("killed %s after the queue went away, with a lease of %s", took, w.lease)
	}
	w.serve()
	<-gate.reached
	gate.unlock()
	r := w.ends(loop, d)
	if r.State != builder.Succeeded || r.Jobs[0].Attempt != 2 {
		t.Errorf("%+v", r)
	}
}

// TestStaleAttemptIsDropped: what a worker reports whose attempt was replaced changes nothing.
func TestStaleAttemptIsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop()
	worker := w.startWorker(func(_ *process, o *WorkerOptions) { o.Slots = 1 })
	d := push(w.commit(1, fmt.Sprintf(gated, "1h")))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	gate := w.gate("slow")
	<-gate.reached
	id := deliveredID(d)
	old, revision, err := readClaim(within(t), loop.q.Jobs, id, "slow")
	if err != nil || old.Job.Attempt != 1 || old.Job.State != builder.Running {
		t.Fatal(old, err)
	}
	stage := loopStage(t, loop, id)
	// As a Loop would that thought the worker dead.
	again := old
	again.Job.State = builder.Pending
	text, err := encode(again)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loop.q.Jobs.Put(within(t), jobKey(id, "slow"), text, revision); err != nil {
		t.Fatal(err)
	}
	<-gate.killed // the worker has seen it
	late := &job{w: worker.worker, rec: record{Run: builder.Run{ID: id}}, stage: stage, claim: old, revision: revision, key: jobKey(id, "slow")}
	late.claim.Job.State = builder.Attesting
	if err := late.report(within(t)); !errors.Is(err, errStale) {
		t.Errorf("a stale report: %v", err)
	}
	<-gate.reached
	if err := late.report(within(t)); !errors.Is(err, errStale) {
		t.Errorf("a stale report while the next attempt runs: %v", err)
	}
	gate.unlock()
	if r := w.ends(loop, d); r.State != builder.Succeeded || r.Jobs[0].Attempt != 2 {
		t.Errorf("%+v", r)
	}
}

// TestDrainedWorkerGivesBack: another worker has the Job at once, and it counts as no failure.
func TestDrainedWorkerGivesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop(func(_ *process, o *Options) { o.Lost = 1 })
	worker := w.startWorker()
	d := push(w.commit(1, fmt.Sprintf(gated, "1h")))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	gate := w.gate("slow")
	<-gate.reached
	w.startWorker()
	worker.stop()
	<-gate.killed
	<-worker.ended
	<-gate.reached
	gate.unlock()
	if r := w.ends(loop, d); r.State != builder.Succeeded || r.Jobs[0].Attempt != 2 {
		t.Errorf("%+v", r)
	}
}

// TestDrainedWorkerFinishes: with time to do so it ends what it has begun.
func TestDrainedWorkerFinishes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop()
	worker := w.startWorker(func(_ *process, o *WorkerOptions) { o.Drain = time.Minute })
	d := push(w.commit(1, fmt.Sprintf(gated, "1h")))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	gate := w.gate("slow")
	<-gate.reached
	worker.stop()
	gate.unlock()
	<-worker.ended
	w.startWorker()
	if r := w.ends(loop, d); r.State != builder.Succeeded || r.Jobs[0].Attempt != 1 {
		t.Errorf("%+v", r)
	}
}
