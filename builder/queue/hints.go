package queue

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Hints tell workers where work may be.
type Hints struct {
	js       jetstream.JetStream
	consumer jetstream.Consumer
}

// Publish gives one worker the hint that there may be something to do at key. A newer hint takes the place of an older one.
func (h *Hints) Publish(ctx context.Context, key string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if _, err := h.js.PublishMsg(ctx, newMessage(hintSubject+"."+path(key), nil)); err != nil {
		return fmt.Errorf("hint %s: %w", key, err)
	}
	return nil
}

// Next waits for a hint. Its taker calls done when the work is claimed or is none; else another worker gets the hint
// after some seconds. The only error is that of ctx.
func (h *Hints) Next(ctx context.Context) (key string, done func(), err error) {
	for m := range pull(ctx, h.js, hintStream, hintConsumer) {
		return unpath(strings.TrimPrefix(m.Subject(), hintSubject+".")), func() { _ = m.Ack() }, nil
	}
	return "", nil, ctx.Err()
}

// pull yields messages of a consumer one by one until ctx ends. Nothing is fetched ahead: what one taker holds back no
// other can have.
func pull(ctx context.Context, js jetstream.JetStream, stream, consumer string) iter.Seq[jetstream.Msg] {
	return func(yield func(jetstream.Msg) bool) {
		var c jetstream.Consumer
		for ctx.Err() == nil {
			if c == nil {
				bound, cancel := bounded(ctx)
				found, err := js.Consumer(bound, stream, consumer)
				cancel()
				if err != nil {
					rest(ctx, 200*time.Millisecond)
					continue
				}
				c = found
			}
			m, on := fetch(ctx, c)
			if !on {
				rest(ctx, 200*time.Millisecond)
				c = nil // it may have been made again
			}
			if m != nil && !yield(m) {
				return
			}
		}
	}
}

// fetch waits for one message. It returns false where it could not ask.
func fetch(ctx context.Context, c jetstream.Consumer) (jetstream.Msg, bool) {
	bound, cancel := context.WithTimeout(ctx, pullExpiry)
	defer cancel()
	batch, err := c.Fetch(1, jetstream.FetchContext(bound), jetstream.FetchHeartbeat(pullHeartbeat))
	if err != nil {
		return nil, false
	}
	m := <-batch.Messages()
	return m, batch.Error() == nil || bound.Err() != nil
}
