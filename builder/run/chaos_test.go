package run

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder"
)

// deliver stores a push as a Git host would: again, until it has an answer.
func (w *world) deliver(p *process, d builder.Delivery) {
	w.t.Helper()
	eventually(w.t, func() (bool, any) {
		err := p.loop.Deliver(w.t.Context(), d)
		return err == nil, err
	})
}

// TestQueueRestartsUnderLoad: the server of the queue goes away again and again, and every Run ends well.
func TestQueueRestartsUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop()
	w.startWorker()
	w.startWorker()
	var all []builder.Delivery
	for round := range 3 {
		for i := range 5 {
			d := push(w.commit(10*round+i, shopPipeline))
			w.deliver(loop, d)
			all = append(all, d)
		}
		w.server.Close()
		w.serve()
	}
	var runs []builder.Run
	for _, d := range all {
		r := w.ends(loop, d)
		w.good(r)
		runs = append(runs, r)
	}
	w.once(runs...)
}

// TestEverythingDies: Loops and workers are killed at points drawn by lot, each replaced by one that will be killed too.
func TestEverythingDies(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any number will do
	t.Logf("seed %d", seed)
	lot := &lottery{random: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // kills, hides nothing
	w := newMortalWorld(t)
	reader := w.startLoop() // this one lives, and has nothing to do but to be asked
	reader.stop()
	<-reader.ended

	over, end := context.WithCancel(t.Context())
	var keepers sync.WaitGroup
	keep := func(start func(points *lottery) *process) {
		keepers.Go(func() {
			for p := start(lot); ; p = start(lot) {
				select {
				case <-p.dead:
				case <-over.Done():
					return
				}
			}
		})
	}
	for range 2 {
		keep(func(lot *lottery) *process {
			return w.startLoop(func(p *process, o *Options) { o.Failpoint = p.when(lot.draw) })
		})
		keep(func(lot *lottery) *process {
			return w.startWorker(func(p *process, o *WorkerOptions) { o.Failpoint = p.when(lot.draw) })
		})
	}
	var all []builder.Delivery
	for i := range 10 {
		d := push(w.commit(i+1, shopPipeline))
		w.deliver(reader, d)
		all = append(all, d)
	}
	var runs []builder.Run
	for _, d := range all {
		r := w.ends(reader, d)
		w.good(r)
		runs = append(runs, r)
	}
	end()
	keepers.Wait()
	w.once(runs...)
	t.Logf("%d processes were killed", lot.hits)
}

// lottery draws who dies: one in so many points, at most so many.
type lottery struct {
	mu     sync.Mutex
	random *rand.Rand
	hits   int
}

func (l *lottery) draw(string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hits >= 12 || l.random.IntN(12) != 0 {
		return false
	}
	l.hits++
	return true
}

// when returns a failpoint that ends the process at the first point for which dies says so.
func (p *process) when(dies func(name string) bool) func(string) {
	return func(here string) {
		if p.alive() == nil && dies(here) {
			p.die()
		}
		if p.alive() != nil {
			<-p.w.release
		}
	}
}
