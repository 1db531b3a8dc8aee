package promoter_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter"
)

// recorder is a WriteBack that counts, and waits where it is told to.
type recorder struct {
	mu      sync.Mutex
	sizes   []int
	err     error
	entered chan struct{}
	release chan struct{}
}

func (r *recorder) write(ctx context.Context, updates []promoter.Update) ([]promoter.Written, error) {
	r.mu.Lock()
	r.sizes = append(r.sizes, len(updates))
	r.mu.Unlock()
	if r.entered != nil {
		r.entered <- struct{}{}
		<-r.release
	}
	if r.err != nil {
		return nil, r.err
	}
	var out []promoter.Written
	for _, u := range updates {
		out = append(out, promoter.Written{Update: u, Outcome: promoter.Committed, Reason: u.App})
	}
	return out, nil
}

// runBatch runs a Batch for the time of the test.
func runBatch(t *testing.T, write func(context.Context, []promoter.Update) ([]promoter.Written, error), o promoter.BatchOptions) *promoter.Batch {
	t.Helper()
	b := promoter.NewBatch(write, o)
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); b.Run(running) }()
	t.Cleanup(func() { stop(); <-done })
	return b
}

// TestBatchAnswersEach: whoever comes while a batch is written goes with the next one, all together, and each gets its own answer.
func TestBatchAnswersEach(t *testing.T) {
	r := &recorder{entered: make(chan struct{}), release: make(chan struct{})}
	over := make(chan time.Time)
	b := runBatch(t, r.write, promoter.BatchOptions{Most: 21, After: func(time.Duration) <-chan time.Time { return over }})
	var callers sync.WaitGroup
	call := func(app string) {
		callers.Go(func() {
			got, err := b.Write(ctx, promoter.Update{App: app})
			if err != nil || got.Reason != app || got.Outcome != promoter.Committed {
				t.Errorf("%s: %+v, %v", app, got, err)
			}
		})
	}
	call("first")
	over <- noon // its time is over
	<-r.entered
	for i := range 42 {
		call(fmt.Sprintf("app-%d", i))
	}
	r.release <- struct{}{}
	for range 2 { // full each time, so no time has to pass
		<-r.entered
		r.release <- struct{}{}
	}
	callers.Wait()
	if fmt.Sprint(r.sizes) != "[1 21 21]" {
		t.Errorf("batches of %v", r.sizes)
	}
}

func TestBatchErrors(t *testing.T) {
	r := &recorder{err: gitsource.ErrUnreachable}
	collecting, over := make(chan struct{}), make(chan time.Time)
	b := promoter.NewBatch(r.write, promoter.BatchOptions{After: func(time.Duration) <-chan time.Time {
		collecting <- struct{}{}
		return over
	}})
	running, stop := context.WithCancel(ctx)
	var run, callers sync.WaitGroup
	run.Go(func() { b.Run(running) })
	gone, leave := context.WithCancel(ctx)
	callers.Go(func() {
		if _, err := b.Write(gone, promoter.Update{App: "gone"}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	<-collecting
	leave()
	callers.Wait()
	over <- noon // whoever has gone is not written
	callers.Go(func() {
		if got, err := b.Write(ctx, promoter.Update{App: "shop"}); !errors.Is(err, gitsource.ErrUnreachable) || got.Update.App != "shop" {
			t.Error(got, err)
		}
	})
	<-collecting
	over <- noon
	callers.Wait()
	if fmt.Sprint(r.sizes) != "[1]" {
		t.Errorf("batches of %v", r.sizes)
	}
	stop()
	run.Wait()
	if _, err := b.Write(ctx, promoter.Update{App: "shop"}); err == nil {
		t.Error("written by nobody")
	}
}
