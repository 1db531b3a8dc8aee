package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-cd/slipway/builder"
)

// Logs are the lines that Jobs print, bounded together in bytes and age.
type Logs struct{ js jetstream.JetStream }

// Bounds of what is stored. Lines travel in batches, each one message; a line's sequence is that of its message and
// its place in it.
const (
	lineBytes  = 16 << 10
	batchBytes = 256 << 10
	batchLines = 1 << 12
	placeBits  = 12
)

// Append stores lines of a Job behind those that it has. The Sequence of each is chosen here; a text of more than 16 KiB is
// cut. It may be retried: a line that comes twice is better than one that is missing.
func (l *Logs) Append(ctx context.Context, run, job string, lines []builder.Log) error {
	for len(lines) > 0 {
		n, size := 0, 0
		for ; n < len(lines) && n < batchLines && size < batchBytes; n++ {
			size += min(len(lines[n].Text), lineBytes) + 64
		}
		if err := l.append(ctx, run, job, lines[:n]); err != nil {
			return fmt.Errorf("log of %s/%s: %w", run, job, err)
		}
		lines = lines[n:]
	}
	return nil
}

// line is a builder.Log as it is stored: short names, because there are many.
type line struct {
	At      int64  `json:"t"` // Unix milliseconds
	Attempt int    `json:"a"`
	Step    int    `json:"s"`
	Stream  string `json:"o"`
	Text    string `json:"x"`
}

func (l *Logs) append(ctx context.Context, run, job string, lines []builder.Log) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	stored := make([]line, len(lines))
	for i, b := range lines {
		stored[i] = line{b.At.UnixMilli(), b.Attempt, b.Step, b.Stream, cut(b.Text)}
	}
	text, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	if len(text) > batchBytes+32<<10 && len(lines) > 1 { // bytes that JSON writes as six
		return errors.Join(l.append(ctx, run, job, lines[:len(lines)/2]), l.append(ctx, run, job, lines[len(lines)/2:]))
	}
	_, err = l.js.PublishMsg(ctx, newMessage(logTopic(run, job), text))
	return err
}

// cut bounds a line and says so in it.
func cut(text string) string {
	if len(text) <= lineBytes {
		return text
	}
	end := lineBytes
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s ... (%d bytes more)", text[:end], len(text)-end)
}

func logTopic(run, job string) string { return logSubject + "." + token(run) + "." + token(job) }

// Read yields the lines of a Job behind the sequence from: those that are there and, with follow, those to come, until ctx ends.
func (l *Logs) Read(ctx context.Context, run, job string, from uint64, follow bool) iter.Seq2[builder.Log, error] {
	return func(yield func(builder.Log, error) bool) {
		topic := logTopic(run, job)
		var end uint64
		if !follow {
			last, err := l.last(ctx, topic)
			if err != nil {
				yield(builder.Log{}, fmt.Errorf("log of %s/%s: %w", run, job, err))
				return
			}
			if end = last; end < from>>placeBits || end == 0 {
				return
			}
		}
		for m, err := range tail(ctx, l.js, logStream, topic, from>>placeBits) {
			if err != nil {
				yield(builder.Log{}, fmt.Errorf("log of %s/%s: %w", run, job, err))
				return
			}
			if !each(m, from, yield) || !follow && m.sequence >= end {
				return
			}
		}
	}
}

func each(m message, from uint64, yield func(builder.Log, error) bool) bool {
	var lines []line
	if err := json.Unmarshal(m.data, &lines); err != nil {
		lines = []line{{Stream: "slipway", Text: "lines of this log cannot be read: " + err.Error()}}
	}
	for i, s := range lines {
		sequence := m.sequence<<placeBits | uint64(min(i, batchLines-1))
		if sequence <= from {
			continue
		}
		b := builder.Log{Sequence: sequence, At: time.UnixMilli(s.At).UTC(), Attempt: s.Attempt, Step: s.Step, Stream: s.Stream, Text: s.Text}
		if !yield(b, nil) {
			return false
		}
	}
	return true
}

// last returns the sequence of the newest message of a topic, 0 if there is none.
func (l *Logs) last(ctx context.Context, topic string) (uint64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	stream, err := l.js.Stream(ctx, logStream)
	if err != nil {
		return 0, err
	}
	m, err := stream.GetLastMsgForSubject(ctx, topic)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return m.Sequence, nil
}
