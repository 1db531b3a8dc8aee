package queue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-cd/slipway/builder"
)

// Leases are records that end by themselves. The server's clock counts, in whole seconds, from 1 s on.
type Leases struct{ table *Table }

// Acquire makes a lease and returns its revision; builder.ErrConflict while somebody holds it.
func (l *Leases) Acquire(ctx context.Context, key, holder string, ttl time.Duration) (uint64, error) {
	revision, err := l.table.put(ctx, key, []byte(holder), 0, jetstream.WithMsgTTL(ttl))
	if !errors.Is(err, builder.ErrConflict) {
		return revision, err
	}
	// What ended leaves a marker for some seconds.
	m, lastErr := l.table.last(ctx, key)
	switch {
	case lastErr != nil:
		return 0, lastErr
	case m != nil && !m.gone:
		return 0, err
	case m == nil:
		return l.table.put(ctx, key, []byte(holder), 0, jetstream.WithMsgTTL(ttl))
	}
	return l.table.put(ctx, key, []byte(holder), m.revision, jetstream.WithMsgTTL(ttl))
}

// Renew gives the lease another ttl from now and returns its new revision; builder.ErrConflict where it has ended.
func (l *Leases) Renew(ctx context.Context, key, holder string, revision uint64, ttl time.Duration) (uint64, error) {
	next, err := l.table.put(ctx, key, []byte(holder), revision, jetstream.WithMsgTTL(ttl))
	if !errors.Is(err, builder.ErrConflict) {
		return next, err
	}
	// The answer to the last renewal may have been lost on the way: then the lease is ours at another revision.
	m, lastErr := l.table.last(ctx, key)
	if lastErr != nil {
		return 0, lastErr
	}
	if m == nil || m.gone || string(m.value) != holder {
		return 0, err
	}
	return l.table.put(ctx, key, []byte(holder), m.revision, jetstream.WithMsgTTL(ttl))
}

// Release ends the lease before its time. One that has ended already stays so.
func (l *Leases) Release(ctx context.Context, key string, revision uint64) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	m := newMessage(l.table.prefix+path(key), nil)
	m.Header.Set(operationHeader, "DEL")
	_, err := l.table.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(revision), jetstream.WithMsgTTL(markerTTL))
	if err != nil && !raced(err) {
		return fmt.Errorf("%s %s: %w", l.table.name, key, err)
	}
	return nil
}

// Held reports whether somebody holds the lease; an error says that nobody knows.
func (l *Leases) Held(ctx context.Context, key string) (bool, error) {
	m, err := l.table.last(ctx, key)
	return m != nil && !m.gone, err
}

// Ended yields the key of each lease that ends from now on, until ctx ends.
func (l *Leases) Ended(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for r, err := range l.table.Changes(ctx) {
			if err != nil {
				yield("", err)
				return
			}
			if r.Value == nil && !yield(r.Key, nil) {
				return
			}
		}
	}
}
