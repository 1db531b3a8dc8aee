package queue_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/builder/queue"
)

// TestReadersOutliveTheServer: everything that waits goes on when the server is back, and nothing is missing.
func TestReadersOutliveTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := serve(t, dir, "")
	admin, worker := server.Admin(), server.Worker()
	address := strings.TrimPrefix(admin.URL, "nats://")
	q := connect(t, queue.Options{Login: admin})
	w := connect(t, queue.Options{Login: worker, Worker: true})
	ctx, stop := context.WithCancel(within(t))
	defer stop()

	seen := &journal{}
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	all.Go(func() {
		for r, err := range q.Runs.Watch(ctx) {
			if err == nil {
				seen.add("run " + string(r.Value))
			}
		}
	})
	all.Go(func() {
		_ = q.Deliveries.Consume(ctx, 2, func(_ context.Context, d builder.Delivery) error {
			seen.add("delivery " + d.ID)
			return nil
		})
	})
	all.Go(func() {
		for ctx.Err() == nil {
			if key, done, err := w.Hints.Next(ctx); err == nil {
				done()
				seen.add("hint " + key)
			}
		}
	})
	all.Go(func() {
		for l, err := range q.Logs.Read(ctx, "r", "a", 0, true) {
			if err == nil {
				seen.add("log " + l.Text)
			}
		}
	})
	var revision uint64
	for round := range 3 {
		eventually(t, func() (bool, string) {
			next, err := q.Runs.Put(ctx, "r", fmt.Appendf(nil, "%d", round), revision)
			if err == nil {
				revision = next
			}
			return err == nil, fmt.Sprint(err)
		})
		for _, err := range []error{
			q.Deliveries.Store(ctx, delivery(round)),
			q.Hints.Publish(ctx, fmt.Sprintf("r/%d", round)),
			q.Logs.Append(ctx, "r", "a", []builder.Log{{Text: fmt.Sprint(round)}}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []string{"run %d", "delivery guid-%d", "hint r/%d", "log %d"} {
			want = fmt.Sprintf(want, round)
			eventually(t, func() (bool, string) { return seen.has(want), want + " is not in " + seen.String() })
		}
		if round == 2 {
			return
		}
		server.Close()
		if _, err := q.Runs.Put(ctx, "r", []byte("lost"), revision); err == nil || errors.Is(err, builder.ErrConflict) {
			t.Fatalf("written without a server: %v", err)
		}
		server = serve(t, dir, address)
		if server.Worker().Password.Reveal() != worker.Password.Reveal() {
			t.Fatal("workers lost their password")
		}
	}
}

type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) has(line string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.lines {
		if l == line {
			return true
		}
	}
	return false
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, ", ")
}

// TestWorkerReachesNoMoreThanItNeeds: whoever takes a worker over gets neither deliveries nor the power over Runs.
func TestWorkerReachesNoMoreThanItNeeds(t *testing.T) {
	t.Parallel()
	server := serve(t, t.TempDir(), "")
	q := connect(t, queue.Options{Server: server})
	w := connect(t, queue.Options{Login: server.Worker(), Worker: true})
	ctx := within(t)
	run, err := q.Runs.Put(ctx, "r", []byte("1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]func(ctx context.Context) error{
		"read a run": func(ctx context.Context) error { _, err := w.Runs.Get(ctx, "r"); return err },
		"change a job": func(ctx context.Context) error {
			revision, err := w.Jobs.Put(ctx, "r/a", []byte("1"), 0)
			if err != nil {
				return err
			}
			_, err = w.Jobs.Put(ctx, "r/a", []byte("2"), revision)
			return err
		},
		"lease": func(ctx context.Context) error {
			revision, err := w.Leases.Acquire(ctx, "r/a/1", "w", time.Minute)
			if err != nil {
				return err
			}
			if revision, err = w.Leases.Renew(ctx, "r/a/1", "w", revision, time.Minute); err != nil {
				return err
			}
			return w.Leases.Release(ctx, "r/a/1", revision)
		},
		"log": func(ctx context.Context) error { return w.Logs.Append(ctx, "r", "a", []builder.Log{{Text: "x"}}) },
	}
	for name, do := range allowed {
		if err := do(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused := map[string]func(short context.Context) error{
		"change a run":     func(short context.Context) error { _, err := w.Runs.Put(short, "r", []byte("2"), run); return err },
		"make a run":       func(short context.Context) error { _, err := w.Runs.Put(short, "s", []byte("2"), 0); return err },
		"store a delivery": func(short context.Context) error { return w.Deliveries.Store(short, delivery(1)) },
		"list runs":        func(short context.Context) error { _, err := w.Runs.Keys(short, ""); return err },
		"give hints":       func(short context.Context) error { return w.Hints.Publish(short, "r/a") },
		"read a log": func(short context.Context) error {
			for _, err := range w.Logs.Read(short, "r", "a", 0, false) {
				return err
			}
			return nil
		},
		"take deliveries": func(short context.Context) error {
			return w.Deliveries.Consume(short, 1, func(context.Context, builder.Delivery) error {
				t.Error("a worker got a delivery")
				return nil
			})
		},
		"another password": func(short context.Context) error {
			login := server.Worker()
			login.Password = server.Admin().Password
			_, err := queue.Connect(short, queue.Options{Login: login, Worker: true, Log: logr.Discard()})
			return err
		},
	}
	for name, do := range refused {
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		if err := do(short); err == nil {
			t.Errorf("a worker could %s", name)
		}
		cancel()
	}
	if r, err := q.Runs.Get(ctx, "r"); err != nil || string(r.Value) != "1" {
		t.Error(r, err)
	}
	if _, err := q.Runs.Get(ctx, "s"); !errors.Is(err, builder.ErrNotFound) {
		t.Error(err)
	}
}

func TestServerRefusesBadOptions(t *testing.T) {
	t.Parallel()
	short := t.TempDir()
	if err := os.WriteFile(filepath.Join(short, "worker.password"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	used := t.TempDir()
	taken := strings.TrimPrefix(serve(t, used, "").Admin().URL, "nats://")
	for want, o := range map[string]queue.ServerOptions{
		"no folder":                     {},
		"is not one of loopback":        {StoreDir: t.TempDir(), Listen: "0.0.0.0:0"},
		`"localhost:1" is not one of`:   {StoreDir: t.TempDir(), Listen: "localhost:1"},
		`"x" is no port`:                {StoreDir: t.TempDir(), Listen: "127.0.0.1:x"},
		"missing port":                  {StoreDir: t.TempDir(), Listen: "127.0.0.1"},
		"is shorter than 32 characters": {StoreDir: short},
		"is in use by another process":  {StoreDir: used},
		"address already in use":        {StoreDir: t.TempDir(), Listen: taken},
	} {
		o.Log = logr.Discard()
		if s, err := queue.Serve(o); err == nil || !strings.Contains(err.Error(), want) {
			if s != nil {
				s.Close()
			}
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	// A stream larger than the disk is refused at once, not waited for.
	_, err := queue.Connect(within(t), queue.Options{Server: serve(t, t.TempDir(), ""), LogBytes: 1 << 60, Log: logr.Discard()})
	if err == nil || !strings.Contains(err.Error(), "stream SLIPWAY_LOGS") || errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := queue.Connect(within(t), queue.Options{}); err == nil {
		t.Error("connected to nothing")
	}
}
