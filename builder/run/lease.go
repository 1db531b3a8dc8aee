package run

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/slipway-cd/slipway/builder"
)

// errLeaseLost is why work ends whose lease could not be renewed.
var errLeaseLost = errors.New("the lease could not be renewed in time")

// holder takes leases for one process.
type holder struct {
	leases Leases
	name   string // of this process and no other
	ttl    time.Duration
	log    logr.Logger
}

// hold acquires the lease, calls do while it is held, and releases it. The context of do ends a good while before the
// lease can: what do began must be stopped by then. builder.ErrConflict says that somebody else holds it.
func (h holder) hold(ctx context.Context, key string, do func(context.Context) error) error {
	since := time.Now() // before the server counts from
	revision, err := h.leases.Acquire(ctx, key, h.name, h.ttl)
	if err != nil {
		return fmt.Errorf("lease %s: %w", key, err)
	}
	held, lose := context.WithCancelCause(ctx)
	var renewer sync.WaitGroup
	stop := make(chan struct{})
	renewer.Go(func() { revision = h.renew(held, key, revision, since, stop, lose) })
	err = do(held)
	close(stop)
	renewer.Wait()
	lost := errors.Is(context.Cause(held), errLeaseLost)
	lose(nil)
	if lost {
		return errors.Join(err, fmt.Errorf("lease %s: %w", key, errLeaseLost))
	}
	// Also after ctx has ended: else the next one has to wait for the time to run out.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if releaseErr := h.leases.Release(end, key, revision); releaseErr != nil {
		h.log.Info("a lease was not released and ends by itself", "lease", key, "cause", releaseErr.Error())
	}
	return err
}

// renew extends the lease until stop is closed, and calls lose when four fifths of its time have passed since the last
// extension that is known to have arrived. It returns the newest revision.
func (h holder) renew(ctx context.Context, key string, revision uint64, since time.Time, stop <-chan struct{}, lose context.CancelCauseFunc) uint64 {
	safe := h.ttl * 4 / 5
	last := time.NewTimer(time.Until(since.Add(safe)))
	defer last.Stop()
	tick := time.NewTicker(h.ttl / 4)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return revision
		case <-last.C:
			lose(errLeaseLost)
			return revision
		case <-tick.C:
		}
		began := time.Now()
		attempt, cancel := context.WithDeadline(ctx, since.Add(safe))
		next, err := h.leases.Renew(attempt, key, h.name, revision, h.ttl)
		cancel()
		switch {
		case err == nil:
			revision, since = next, began
			last.Reset(time.Until(since.Add(safe)))
		case errors.Is(err, builder.ErrConflict):
			lose(errLeaseLost)
			return revision
		}
	}
}
