package run

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/slipway-cd/slipway/builder"
)

// Bounds of the log of one attempt. What is over is counted, and said at the end.
const (
	logLineBytes = 16 << 10
	logBytes     = 64 << 20 // of an attempt
	logWaiting   = 20_000   // lines that wait for the queue
	logBatch     = 1_000
	logEvery     = 100 * time.Millisecond
	logPatience  = 5 * time.Second // for the last lines when a Job ends
)

// logs sends the lines of one attempt to the queue, in their order, without holding the Job up.
type logs struct {
	w        *Worker
	run, job string
	attempt  int

	mu      sync.Mutex
	lines   []builder.Log
	bytes   int
	dropped int
	step    int

	wake chan struct{}
	end  chan struct{}
	done sync.WaitGroup
	stop context.CancelFunc
}

func newLogs(w *Worker, run, job string, attempt int) *logs {
	ctx, stop := context.WithCancel(context.Background())
	l := &logs{w: w, run: run, job: job, attempt: attempt, wake: make(chan struct{}, 1), end: make(chan struct{}), stop: stop}
	l.done.Go(func() { l.send(ctx) })
	return l
}

// add takes a line that a command printed.
func (l *logs) add(step int, stream string, line []byte) {
	text := l.w.mask.Clean(string(line))
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	if len(text) > logLineBytes {
		kept := strings.ToValidUTF8(text[:logLineBytes], "")
		text = fmt.Sprintf("%s ... (%d bytes more)", kept, len(text)-len(kept))
	}
	l.put(step, stream, text)
}

// say adds a line of Slipway's own.
func (l *logs) say(step int, text string) { l.put(step, streamSlipway, l.w.mask.Clean(text)) }

func (l *logs) put(step int, stream, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.step = step
	if stream != streamSlipway && (l.bytes > logBytes || len(l.lines) >= logWaiting) {
		l.dropped++
		l.w.metrics.dropped.Inc()
		return
	}
	l.bytes += len(text)
	l.lines = append(l.lines, builder.Log{At: l.w.o.Now(), Attempt: l.attempt, Step: step, Stream: stream, Text: text})
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// send hands lines on until the end, when all are sent.
func (l *logs) send(ctx context.Context) {
	for ended := false; ; {
		batch := l.take()
		if len(batch) == 0 {
			if ended {
				return
			}
			select {
			case <-l.wake:
			case <-l.end:
				ended = true
			}
			continue
		}
		for l.w.o.Queue.Log.Append(ctx, l.run, l.job, batch) != nil {
			if !rest(ctx, logEvery) {
				l.w.metrics.dropped.Add(float64(len(batch)))
				return
			}
		}
		if len(batch) < logBatch && !ended { // let some lines gather: each batch is one message
			select {
			case <-l.end:
				ended = true
			case <-time.After(logEvery):
			}
		}
	}
}

func (l *logs) take() []builder.Log {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.lines), logBatch)
	batch := slices.Clone(l.lines[:n])
	l.lines = slices.Delete(l.lines, 0, n)
	return batch
}

// close sends what is left, for a bounded time: a reader who sees that the Job has ended finds all of its lines.
func (l *logs) close(ctx context.Context) {
	l.mu.Lock()
	dropped, step := l.dropped, l.step
	l.mu.Unlock()
	if dropped > 0 {
		l.say(step, fmt.Sprintf("%d lines are left out: the log of an attempt is bounded", dropped))
	}
	timer := time.AfterFunc(logPatience, l.stop)
	defer timer.Stop()
	defer context.AfterFunc(ctx, l.stop)()
	close(l.end)
	l.done.Wait()
	l.stop()
}

func randomID() string { return strings.ToLower(rand.Text()[:8]) }
