package queue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-cd/slipway/builder"
)

// Table is a bucket of records. A key is one or more names between slashes.
type Table struct {
	js     jetstream.JetStream
	name   string
	prefix string // of subjects, with the last dot
}

// Headers by which NATS says that a message stands for the absence of a value.
const (
	operationHeader = "KV-Operation"
	markerHeader    = "Nats-Marker-Reason"
	markerTTL       = 10 * time.Second
)

func table(js jetstream.JetStream, bucket string) *Table {
	return &Table{js: js, name: bucket, prefix: "$KV." + bucket + "."}
}

// Get returns the record at key, or builder.ErrNotFound if there is definitely none. Any other error says that nobody knows.
func (t *Table) Get(ctx context.Context, key string) (builder.Record, error) {
	m, err := t.last(ctx, key)
	if err != nil {
		return builder.Record{}, err
	}
	if m == nil || m.gone {
		return builder.Record{}, fmt.Errorf("%s %s: %w", t.name, key, builder.ErrNotFound)
	}
	return builder.Record{Key: key, Value: m.value, Revision: m.revision}, nil
}

// Put sets the value at key if its revision is the given one, 0 for "not there", and returns the new revision. With
// builder.ErrConflict nothing was changed; after any other error it may have been.
func (t *Table) Put(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return t.put(ctx, key, value, revision)
}

// put publishes by itself: what the client offers for buckets drops the time to live of an update.
func (t *Table) put(ctx context.Context, key string, value []byte, revision uint64, options ...jetstream.PublishOpt) (uint64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	m := &nats.Msg{Subject: t.prefix + path(key), Header: nats.Header{}, Data: value}
	ack, err := t.js.PublishMsg(ctx, m, append(options, jetstream.WithExpectLastSequencePerSubject(revision))...)
	if raced(err) {
		return 0, fmt.Errorf("%s %s: %w", t.name, key, builder.ErrConflict)
	}
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", t.name, key, err)
	}
	return ack.Sequence, nil
}

// Keys returns all keys whose first names are those of prefix, all if it is empty, in order.
func (t *Table) Keys(ctx context.Context, prefix string) ([]string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	filter := t.prefix
	if prefix != "" {
		filter += path(prefix) + "."
	}
	info, err := t.info(ctx, jetstream.WithSubjectFilter(filter+">"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	keys := make([]string, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		keys = append(keys, unpath(strings.TrimPrefix(subject, t.prefix)))
	}
	slices.Sort(keys)
	return keys, nil
}

// Watch yields all records, then each change as it happens, over restarts of the server, until ctx ends. Of changes
// that follow each other quickly it may show the last one only.
func (t *Table) Watch(ctx context.Context) iter.Seq2[builder.Record, error] {
	return t.watch(ctx, func() (uint64, error) { return 1, nil })
}

// Changes yields each change from now on, like Watch.
func (t *Table) Changes(ctx context.Context) iter.Seq2[builder.Record, error] {
	return t.watch(ctx, func() (uint64, error) {
		ctx, cancel := bounded(ctx)
		defer cancel()
		info, err := t.info(ctx)
		if err != nil {
			return 0, err
		}
		return info.State.LastSeq + 1, nil
	})
}

func (t *Table) watch(ctx context.Context, from func() (uint64, error)) iter.Seq2[builder.Record, error] {
	return func(yield func(builder.Record, error) bool) {
		var start uint64
		if err := patiently(ctx, func() (err error) { start, err = from(); return err }); err != nil {
			yield(builder.Record{}, fmt.Errorf("%s: %w", t.name, err))
			return
		}
		for m, err := range tail(ctx, t.js, "KV_"+t.name, t.prefix+">", start) {
			if err != nil {
				yield(builder.Record{}, fmt.Errorf("%s: %w", t.name, err))
				return
			}
			r := builder.Record{Key: unpath(strings.TrimPrefix(m.subject, t.prefix)), Value: m.data, Revision: m.sequence}
			if gone(m.header) {
				r.Value = nil
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (t *Table) info(ctx context.Context, options ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	stream, err := t.js.Stream(ctx, "KV_"+t.name)
	if err != nil {
		return nil, err
	}
	return stream.Info(ctx, options...)
}

// stored is the newest message of a key.
type stored struct {
	value    []byte
	revision uint64
	gone     bool // it says that the value is no more
}

// last returns the newest message of a key, nil if there is none. It asks for the message alone: the client would first
// ask about the bucket, which tells a worker more than it has to know.
func (t *Table) last(ctx context.Context, key string) (*stored, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	m, err := t.js.Conn().RequestWithContext(ctx, "$JS.API.DIRECT.GET.KV_"+t.name+"."+t.prefix+path(key), nil)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", t.name, key, err)
	}
	if status := m.Header.Get("Status"); status == "404" {
		return nil, nil
	} else if status != "" {
		return nil, fmt.Errorf("%s %s: the queue answered %s %s", t.name, key, status, m.Header.Get("Description"))
	}
	revision, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%s %s: an answer without a sequence: %w", t.name, key, err)
	}
	return &stored{value: m.Data, revision: revision, gone: gone(m.Header)}, nil
}

func gone(h nats.Header) bool { return h.Get(operationHeader) != "" || h.Get(markerHeader) != "" }

// raced reports whether err says that another sequence was expected; clusters have a code of their own for it.
func raced(err error) bool {
	var e *jetstream.APIError
	const replicated = 10164
	return errors.As(err, &e) && (e.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || e.ErrorCode == replicated)
}

// bounded gives a call an end where its caller gave none: a server that went away in the middle never answers.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 5*time.Second)
}
