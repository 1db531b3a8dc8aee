package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/queue"
	"github.com/slipway-cd/slipway/gitsource"
)

// serve starts a server on dir and the address, which may be empty.
func serve(t *testing.T, dir, address string) *queue.Server {
	t.Helper()
	s, err := queue.Serve(queue.ServerOptions{StoreDir: dir, Listen: address, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func connect(t *testing.T, o queue.Options) *queue.Queue {
	t.Helper()
	o.Log = logr.Discard()
	q, err := queue.Connect(within(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok, which may say why it is not.
func eventually(t *testing.T, ok func() (bool, string)) {
	t.Helper()
	ctx, tick := within(t), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for {
		good, why := ok()
		if good {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(why)
		case <-tick.C:
		}
	}
}

func TestCompareAndSwapHasOneWinner(t *testing.T) {
	t.Parallel()
	q := connect(t, queue.Options{Server: serve(t, t.TempDir(), "")})
	ctx := within(t)
	if _, err := q.Jobs.Get(ctx, "r/a"); !errors.Is(err, builder.ErrNotFound) {
		t.Fatal(err)
	}
	const rounds, writers = 20, 8
	revision := uint64(0)
	for round := range rounds {
		var won, lost atomic.Int64
		var next atomic.Uint64
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				n, err := q.Jobs.Put(ctx, "r/a", fmt.Appendf(nil, "%d.%d", round, w), revision)
				switch {
				case err == nil:
					won.Add(1)
					next.Store(n)
				case errors.Is(err, builder.ErrConflict):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 || lost.Load() != writers-1 {
			t.Fatalf("round %d: %d won, %d lost", round, won.Load(), lost.Load())
		}
		revision = next.Load()
	}
	r, err := q.Jobs.Get(ctx, "r/a")
	if err != nil || r.Revision != revision {
		t.Fatal(r, err)
	}
}

func TestKeysKeepTheirNames(t *testing.T) {
	t.Parallel()
	q := connect(t, queue.Options{Server: serve(t, t.TempDir(), "")})
	ctx := within(t)
	names := []string{"r1/a", "r1/b.c", "r1/*", "r1/ü >", "r2/a", "r1/a=2E"}
	for _, n := range names {
		if _, err := q.Jobs.Put(ctx, n, []byte(n), 0); err != nil {
			t.Fatal(n, err)
		}
	}
	slices.Sort(names)
	if keys, err := q.Jobs.Keys(ctx, ""); err != nil || !slices.Equal(keys, names) {
		t.Errorf("%q %v", keys, err)
	}
	if keys, err := q.Jobs.Keys(ctx, "r2"); err != nil || !slices.Equal(keys, []string{"r2/a"}) {
		t.Errorf("%q %v", keys, err)
	}
	for r, err := range q.Jobs.Watch(ctx) {
		if err != nil || string(r.Value) != r.Key {
			t.Fatal(r, err)
		}
		if names = slices.DeleteFunc(names, func(n string) bool { return n == r.Key }); len(names) == 0 {
			break
		}
	}
}

func TestLeaseEndsUnlessRenewed(t *testing.T) {
	t.Parallel()
	q := connect(t, queue.Options{Server: serve(t, t.TempDir(), "")})
	ctx := within(t)
	ended := make(chan string, 4)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer close(ended)
		for key, err := range q.Leases.Ended(watching) {
			if err == nil {
				ended <- key
			}
		}
	}()
	// The watch has begun when it shows the end of a lease that was made for this.
	for seen, n := false, 0; !seen; n++ {
		revision, err := q.Leases.Acquire(ctx, fmt.Sprintf("warm/%d", n), "me", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Leases.Release(ctx, fmt.Sprintf("warm/%d", n), revision); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
			seen = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	began := time.Now()
	revision, err := q.Leases.Acquire(ctx, "r/a/1", "me", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Leases.Acquire(ctx, "r/a/1", "you", time.Second); !errors.Is(err, builder.ErrConflict) {
		t.Fatalf("a held lease was given away: %v", err)
	}
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < 2500*time.Millisecond {
		<-tick.C
		if revision, err = q.Leases.Renew(ctx, "r/a/1", "me", revision, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if held, err := q.Leases.Held(ctx, "r/a/1"); err != nil || !held {
		t.Fatal("a renewed lease ended", err)
	}
	last := time.Now()
	for key := range ended {
		if key == "r/a/1" {
			break
		}
	}
	if gone := time.Since(last); gone < 500*time.Millisecond || gone > 4*time.Second {
		t.Errorf("ended %s after the last renewal", gone)
	}
	if held, err := q.Leases.Held(ctx, "r/a/1"); err != nil || held {
		t.Fatal(held, err)
	}
	if _, err := q.Leases.Renew(ctx, "r/a/1", "me", revision, time.Second); !errors.Is(err, builder.ErrConflict) {
		t.Fatalf("a lease that had ended was renewed: %v", err)
	}
	if _, err := q.Leases.Acquire(ctx, "r/a/1", "you", time.Second); err != nil {
		t.Fatal(err)
	}
}

// TestRenewalSurvivesLostAnswer: the holder does not know the newest revision, and is the holder all the same.
func TestRenewalSurvivesLostAnswer(t *testing.T) {
	t.Parallel()
	q := connect(t, queue.Options{Server: serve(t, t.TempDir(), "")})
	ctx := within(t)
	old, err := q.Leases.Acquire(ctx, "r/a/1", "me", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Leases.Renew(ctx, "r/a/1", "me", old, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Leases.Renew(ctx, "r/a/1", "me", old, time.Minute); err != nil {
		t.Error(err)
	}
	if _, err := q.Leases.Renew(ctx, "r/a/1", "you", old, time.Minute); !errors.Is(err, builder.ErrConflict) {
		t.Error(err)
	}
}

func delivery(n int) builder.Delivery {
	return builder.Delivery{
		ID: fmt.Sprintf("guid-%d", n), Repo: builder.Repo{Name: "shop", URL: "https://git.example/shop"},
		Revision:   gitsource.Revision{Ref: "refs/heads/main", ID: gitsource.ObjectID(fmt.Sprintf("%040x", n))},
		ReceivedAt: time.Unix(int64(n), 0).UTC(),
	}
}

func TestDeliveriesAreStoredOnceAndOutliveTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := serve(t, dir, "")
	q := connect(t, queue.Options{Server: server})
	const n = 20
	for i := range n {
		for range 3 {
			if err := q.Deliveries.Store(within(t), delivery(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	q.Close()
	server.Close()

	q = connect(t, queue.Options{Server: serve(t, dir, "")})
	for i := range n { // again, to the new server: no window of time counts
		if err := q.Deliveries.Store(within(t), delivery(i)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, done := context.WithCancel(within(t))
	var mu sync.Mutex
	seen, refused := map[string]int{}, false
	err := q.Deliveries.Consume(ctx, 4, func(_ context.Context, d builder.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if d.ID == "guid-3" && !refused {
			refused = true
			return errors.New("the Git host does not answer")
		}
		if seen[d.ID]++; len(seen) == n {
			done()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for i := range n {
		if got := seen[delivery(i).ID]; got != 1 {
			t.Errorf("%s handled %d times", delivery(i).ID, got)
		}
	}
}

func TestHintsGoToOneWorker(t *testing.T) {
	t.Parallel()
	server := serve(t, t.TempDir(), "")
	q := connect(t, queue.Options{Server: server})
	w := connect(t, queue.Options{Server: server, Worker: true})
	ctx := within(t)
	const n = 30
	for i := range n {
		for range 2 { // a newer hint takes the place of the older
			if err := q.Hints.Publish(ctx, fmt.Sprintf("run/job.%d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	taking, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	seen := map[string]int{}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for {
				key, done, err := w.Hints.Next(taking)
				if err != nil {
					return
				}
				done()
				mu.Lock()
				if seen[key]++; len(seen) == n {
					stop()
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	for i := range n {
		if got := seen[fmt.Sprintf("run/job.%d", i)]; got != 1 {
			t.Errorf("hint %d came %d times", i, got)
		}
	}
}

func TestLogsAreReadFromASequenceAndFollowed(t *testing.T) {
	t.Parallel()
	q := connect(t, queue.Options{Server: serve(t, t.TempDir(), "")})
	ctx := within(t)
	put := func(texts ...string) {
		t.Helper()
		var lines []builder.Log
		for _, x := range texts {
			lines = append(lines, builder.Log{At: time.Unix(1, 0), Attempt: 1, Step: 2, Stream: "stdout", Text: x})
		}
		if err := q.Logs.Append(ctx, "r", "a", lines); err != nil {
			t.Fatal(err)
		}
	}
	for range q.Logs.Read(ctx, "r", "a", 0, false) {
		t.Fatal("a line that nobody wrote")
	}
	put("one", "two", "three")
	if err := q.Logs.Append(ctx, "r", "b", []builder.Log{{Text: "of another job"}}); err != nil {
		t.Fatal(err)
	}
	put(strings.Repeat("ü", 10_000), "five")
	var all []builder.Log
	for l, err := range q.Logs.Read(ctx, "r", "a", 0, false) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	if len(all) != 5 || all[1].Text != "two" || all[1].Step != 2 || !strings.HasSuffix(all[3].Text, "ü ... (3616 bytes more)") {
		t.Fatalf("%d lines: %.200v", len(all), all)
	}
	for i, l := range all {
		n := 0
		for range q.Logs.Read(ctx, "r", "a", l.Sequence, false) {
			n++
		}
		if n != len(all)-i-1 {
			t.Errorf("%d lines behind line %d", n, i)
		}
	}
	n := 0
	for l, err := range q.Logs.Read(ctx, "r", "a", all[3].Sequence, true) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 1 {
			put("six")
		} else if l.Text == "six" {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d lines followed", n)
	}
}

func TestManyLinesAreManyMessages(t *testing.T) {
	t.Parallel()
	q := connect(t, queue.Options{Server: serve(t, t.TempDir(), "")})
	ctx := within(t)
	lines := make([]builder.Log, 20_000)
	for i := range lines {
		lines[i].Text = fmt.Sprintf("%d\x01\x02\x03", i)
	}
	began := time.Now()
	if err := q.Logs.Append(ctx, "r", "a", lines); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d lines stored in %s", len(lines), time.Since(began))
	i, last := 0, uint64(0)
	for l, err := range q.Logs.Read(ctx, "r", "a", 0, false) {
		if err != nil || l.Text != lines[i].Text || l.Sequence <= last {
			t.Fatal(i, l, err)
		}
		i, last = i+1, l.Sequence
	}
	if i != len(lines) {
		t.Errorf("%d lines", i)
	}
}
