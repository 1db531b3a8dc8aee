package queue

import (
	"context"
	"iter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// message is one message of a stream.
type message struct {
	subject  string
	sequence uint64
	header   nats.Header
	data     []byte
}

// The client notices a server that went away after a missing heartbeat; its own default is half a minute.
const (
	pullExpiry    = 2 * time.Second
	pullHeartbeat = 500 * time.Millisecond
)

// tail yields the messages of the subjects from the given sequence on, each once and in order, and goes on where it was
// when the connection or the consumer was lost. It ends with the error of ctx.
func tail(ctx context.Context, js jetstream.JetStream, stream, subjects string, from uint64) iter.Seq2[message, error] {
	return func(yield func(message, error) bool) {
		for {
			next, on := follow(ctx, js, stream, subjects, from, yield)
			if !on {
				return
			}
			from = next
			if !rest(ctx, 100*time.Millisecond) {
				yield(message{}, ctx.Err())
				return
			}
		}
	}
}

// follow is one life of a consumer. It returns where the next one has to begin, and false when nobody listens any more.
func follow(ctx context.Context, js jetstream.JetStream, stream, subjects string, from uint64, yield func(message, error) bool) (uint64, bool) {
	bound, cancel := bounded(ctx)
	defer cancel()
	consumer, err := js.CreateConsumer(bound, stream, jetstream.ConsumerConfig{
		FilterSubject: subjects, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(from, 1),
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return from, true
	}
	defer func() {
		// What cannot be deleted ends by being inactive.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = js.DeleteConsumer(ctx, stream, consumer.CachedInfo().Name)
	}()
	messages, err := consumer.Messages(jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return from, true
	}
	defer messages.Stop()
	for delivered := uint64(1); ; delivered++ {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return from, true
		}
		meta, err := m.Metadata()
		if err != nil || meta.Sequence.Consumer != delivered {
			return from, true // nothing is acknowledged, so a gap in the consumer's own count was lost on the way
		}
		from = meta.Sequence.Stream + 1
		if !yield(message{m.Subject(), meta.Sequence.Stream, m.Headers(), m.Data()}, nil) {
			return from, false
		}
	}
}
