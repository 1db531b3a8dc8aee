package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-cd/slipway/builder"
)

// Deliveries are the webhooks that were accepted.
type Deliveries struct {
	js  jetstream.JetStream
	log logr.Logger
}

const (
	// handling bounds the time for one delivery.
	handling = time.Minute
	// ackWait is how long a message waits for another taker when its first one died. Who lives says so in time.
	ackWait = 5 * time.Second
)

// Store returns when the delivery is on disk. One that is there already is stored once.
func (d *Deliveries) Store(ctx context.Context, delivery builder.Delivery) error {
	text, err := json.Marshal(delivery)
	if err != nil {
		return fmt.Errorf("delivery %s: %w", delivery.ID, err)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	_, err = d.js.PublishMsg(ctx, newMessage(deliverySubject+"."+identity(delivery), text), jetstream.WithExpectLastSequencePerSubject(0))
	if err != nil && !raced(err) {
		return fmt.Errorf("delivery %s: not stored: %w", delivery.ID, err)
	}
	return nil
}

// identity is the same for two deliveries that say the same. Parts are hashed, because hosts choose them freely.
func identity(d builder.Delivery) string {
	h := sha256.New()
	for _, part := range []string{d.Repo.Name, d.ID, d.Revision.Ref, string(d.Revision.ID)} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Consume hands each delivery to handle, in that many goroutines, until ctx ends. One for which handle fails comes
// again later, as does one whose handler died; so handle must do nothing twice.
func (d *Deliveries) Consume(ctx context.Context, parallel int, handle func(context.Context, builder.Delivery) error) error {
	var all sync.WaitGroup
	for range max(parallel, 1) {
		all.Go(func() {
			for m := range pull(ctx, d.js, deliveryStream, deliveryConsumer) {
				d.handle(ctx, m, handle)
			}
		})
	}
	all.Wait()
	return ctx.Err()
}

// Waiting returns how many deliveries are stored and not handled yet.
func (d *Deliveries) Waiting(ctx context.Context) (uint64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	c, err := d.js.Consumer(ctx, deliveryStream, deliveryConsumer)
	if err != nil {
		return 0, fmt.Errorf("deliveries: %w", err)
	}
	info := c.CachedInfo()
	return info.NumPending + uint64(max(info.NumAckPending, 0)), nil
}

func (d *Deliveries) handle(ctx context.Context, m jetstream.Msg, handle func(context.Context, builder.Delivery) error) {
	var delivery builder.Delivery
	if err := json.Unmarshal(m.Data(), &delivery); err != nil {
		d.log.Error(err, "a stored delivery cannot be read and is left out", "subject", m.Subject())
		_ = m.Term()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handling)
	defer cancel()
	var pulse sync.WaitGroup
	pulse.Go(func() {
		for rest(ctx, ackWait/3) {
			_ = m.InProgress()
		}
	})
	err := handle(ctx, delivery)
	cancel()
	pulse.Wait()
	if err == nil {
		_ = m.Ack() // if it gets lost the delivery comes again, and is known
		return
	}
	if !errors.Is(err, context.Canceled) {
		d.log.Error(err, "a delivery will be tried again", "delivery", delivery.ID, "repo", delivery.Repo.Name)
	}
	wait := time.Second
	if meta, err := m.Metadata(); err == nil {
		wait <<= min(meta.NumDelivered-1, 5)
	}
	_ = m.NakWithDelay(wait)
}

func newMessage(subject string, data []byte) *nats.Msg {
	return &nats.Msg{Subject: subject, Header: nats.Header{}, Data: data}
}
