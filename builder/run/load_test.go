package run

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder"
)

const tiny = "name: tiny\nstages: [{name: a, steps: [{run: instant}]}]\n"

// TestThousandDeliveries: a flood is stored at once, each push to the branch becomes one Run, and those that come again none.
func TestThousandDeliveries(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand runs")
	}
	w := newWorld(t)
	loop := w.startLoop(func(_ *process, o *Options) { o.Sweep = 5 * time.Second })
	for range 2 {
		w.startWorker(func(_ *process, o *WorkerOptions) { o.Slots = 8 })
	}
	const n, runs, senders = 1000, 250, 8
	stored := make([]time.Duration, n)
	began := time.Now()
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := s; i < n; i += senders {
				d := push(w.commit(i+1, tiny))
				if i >= runs {
					d.Revision.Ref = "refs/heads/other"
				}
				since := time.Now()
				if err := loop.loop.Deliver(within(t), d); err != nil {
					t.Error(err)
				}
				stored[i] = time.Since(since)
				if i%10 == 0 { // a host that is not sure
					if err := loop.loop.Deliver(within(t), d); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	t.Logf("stored %d in %s: p50 %s, p99 %s", n, time.Since(began).Round(time.Millisecond), quantile(stored, 0.5), quantile(stored, 0.99))
	eventually(t, func() (bool, any) {
		left := loop.loop.count(builder.Pending) + loop.loop.count(builder.Running)
		waiting, err := w.waiting(loop)
		return err == nil && waiting == 0 && left == 0, fmt.Sprintf("%v runs and %d deliveries are left", left, waiting)
	})
	t.Logf("%d runs ended after %s", runs, time.Since(began).Round(time.Millisecond))
	ended, err := loop.loop.Runs(within(t), builder.RunFilter{Limit: 2 * n, States: []builder.State{builder.Succeeded}})
	if err != nil || len(ended) != runs {
		t.Errorf("%d runs succeeded: %v", len(ended), err)
	}
	if len(w.commands) != runs {
		t.Errorf("%d commands were executed", len(w.commands))
	}
}

// TestLatency measures what a person waits for: from the webhook to the first step, one push at a time.
func TestLatency(t *testing.T) {
	if testing.Short() {
		t.Skip("measures")
	}
	w := newWorld(t)
	loop := w.startLoop()
	w.startWorker()
	const n = 60
	var stored, first []time.Duration
	for i := range n {
		d := push(w.commit(i+1, tiny))
		if err := loop.loop.Deliver(within(t), d); err != nil {
			t.Fatal(err)
		}
		stored = append(stored, time.Since(d.ReceivedAt))
		r := w.ends(loop, d)
		if r.State != builder.Succeeded {
			t.Fatalf("%+v", r)
		}
		first = append(first, r.Jobs[0].Steps[0].Started.Sub(r.Trigger.ReceivedAt))
	}
	t.Logf("webhook stored: p50 %s, p99 %s", quantile(stored, 0.5), quantile(stored, 0.99))
	t.Logf("webhook to first step: p50 %s, p99 %s", quantile(first, 0.5), quantile(first, 0.99))
	if p50 := quantile(first, 0.5); p50 > time.Second {
		t.Errorf("half of all pushes wait for more than %s", p50)
	}
}

func quantile(all []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(10 * time.Microsecond)
}

// TestNothingWaitsForTheSweep: without a fault the next step follows from the change before it, also through a window of one.
func TestNothingWaitsForTheSweep(t *testing.T) {
	t.Parallel()
	w := newMortalWorld(t)
	loop := w.startLoop(func(_ *process, o *Options) { o.Sweep, o.Window = time.Hour, 1 })
	w.startWorker()
	var all []builder.Delivery
	for i := range 8 {
		definition := shopPipeline
		if i%2 == 0 {
			definition = failing
		}
		d := push(w.commit(i+1, definition))
		if err := loop.loop.Deliver(within(t), d); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	for i, d := range all {
		if r := w.ends(loop, d); (r.State == builder.Succeeded) != (i%2 == 1) {
			t.Errorf("%+v", r)
		}
	}
	// Nor does a dead worker's Job wait for it: the end of its lease is seen.
	victim := w.startWorker(func(p *process, o *WorkerOptions) { o.Failpoint, o.Slots = p.at(FailpointRun), 1 })
	for n := 100; ; n++ {
		d := push(w.commit(n, shopPipeline))
		if err := loop.loop.Deliver(within(t), d); err != nil {
			t.Fatal(err)
		}
		w.good(w.ends(loop, d))
		select {
		case <-victim.dead:
			return
		default:
		}
	}
}
