package promoter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// BatchOptions configure a Batch.
type BatchOptions struct {
	// Wait is how long the first Update waits for others; default 200 ms. While a
	// batch is being written, those that come wait for its end anyway, and go together.
	Wait time.Duration
	// Most bounds the Updates of one batch; default 100.
	Most int
	// After is the clock; default time.After.
	After func(d time.Duration) <-chan time.Time
}

// Batch collects the Updates of several callers into few calls of WriteBack, one
// at a time, and gives each caller its own answer. Who makes one calls Run.
type Batch struct {
	write    func(ctx context.Context, updates []Update) ([]Written, error)
	options  BatchOptions
	incoming chan waiting
	stopped  chan struct{}
	stop     sync.Once
}

type waiting struct {
	gone   <-chan struct{} // closed when the caller waits no more
	update Update
	answer chan answer // of one, so that the writer never waits for a caller
}

type answer struct {
	written Written
	err     error
}

// NewBatch returns a Batch in front of write, which is a Promoter's WriteBack.
func NewBatch(write func(ctx context.Context, updates []Update) ([]Written, error), o BatchOptions) *Batch {
	if o.Wait <= 0 {
		o.Wait = 200 * time.Millisecond
	}
	if o.Most <= 0 {
		o.Most = 100
	}
	if o.After == nil {
		o.After = time.After
	}
	return &Batch{write: write, options: o, incoming: make(chan waiting), stopped: make(chan struct{})}
}

var errStopped = errors.New("write-back has stopped (send it again)")

// Write hands u to the next batch and returns what became of it. An error means
// that nobody knows: send it again, which writes nothing twice.
func (b *Batch) Write(ctx context.Context, u Update) (Written, error) {
	w := waiting{gone: ctx.Done(), update: u, answer: make(chan answer, 1)}
	failed := func(err error) (Written, error) {
		return Written{Update: u}, fmt.Errorf("write-back of %s to %s: %w", u.App, u.Environment, err)
	}
	select {
	case b.incoming <- w:
	case <-b.stopped:
		return failed(errStopped)
	case <-ctx.Done():
		return failed(ctx.Err())
	}
	select {
	case a := <-w.answer:
		return a.written, a.err
	case <-ctx.Done():
		return failed(ctx.Err())
	}
}

// Run writes batches until ctx ends; then callers that wait get an error. A Batch runs once.
func (b *Batch) Run(ctx context.Context) {
	defer b.stop.Do(func() { close(b.stopped) })
	for {
		select {
		case first := <-b.incoming:
			b.answer(ctx, b.collect(ctx, first))
		case <-ctx.Done():
			return
		}
	}
}

// collect takes what comes until the time is over or the batch is full.
func (b *Batch) collect(ctx context.Context, first waiting) []waiting {
	batch := []waiting{first}
	over := b.options.After(b.options.Wait)
	for len(batch) < b.options.Most {
		select {
		case w := <-b.incoming:
			batch = append(batch, w)
		case <-over:
			return batch
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// answer writes the Updates of those that still wait.
func (b *Batch) answer(ctx context.Context, batch []waiting) {
	var waits []waiting
	var updates []Update
	for _, w := range batch {
		select {
		case <-w.gone:
		default:
			waits, updates = append(waits, w), append(updates, w.update)
		}
	}
	if len(updates) == 0 {
		return
	}
	written, err := b.write(ctx, updates)
	for i, w := range waits {
		if err != nil {
			w.answer <- answer{written: Written{Update: w.update}, err: err}
			continue
		}
		w.answer <- answer{written: written[i]}
	}
}
