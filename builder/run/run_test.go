package run

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
)

func TestRunFromPushToPromotion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	metrics := prometheus.NewRegistry()
	loop := w.startLoop(func(_ *process, o *Options) { o.Metrics = metrics })
	w.startWorker(func(_ *process, o *WorkerOptions) { o.Metrics = metrics })
	d := push(w.commit(1, shopPipeline))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	r := w.ends(loop, d)
	w.good(r)
	if r.Trigger.Actor != "ann" || r.Trigger.Delivery != d.ID || len(r.Trace) != 32 || r.Pipeline != "shop" {
		t.Errorf("%+v", r)
	}
	if log := w.logOf(loop, r.ID, "test"); !strings.Contains(log, "stdout: hello\n") || !strings.Contains(log, "slipway: 3 files of ") {
		t.Error(log)
	}
	if log := w.logOf(loop, r.ID, "image"); !strings.Contains(log, "slipway: signed registry.example/shop@"+digestOf(d.Revision.ID)) {
		t.Error(log)
	}
	if log := w.logOf(loop, r.ID, "dev"); !strings.Contains(log, "slipway: promoted registry.example/shop@") {
		t.Error(log)
	}
	eventually(t, func() (bool, any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.statuses) > 0 && w.statuses[len(w.statuses)-1] == builder.Succeeded, fmt.Sprint(w.statuses)
	})
	want := "slipway_job_duration_seconds 3, slipway_run_first_step_seconds 1, slipway_runs_finished_total 1"
	eventually(t, func() (bool, any) { got := counts(t, metrics); return got == want, got })
}

// counts returns how often each of some collectors has counted.
func counts(t *testing.T, from prometheus.Gatherer) string {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		n := 0.0
		for _, m := range f.GetMetric() {
			n += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
		if n > 0 {
			out = append(out, fmt.Sprintf("%s %v", f.GetName(), n))
		}
	}
	return strings.Join(out, ", ")
}

func TestWhatStartsNoRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop()
	w.startWorker()
	other, tag, none := push(w.commit(1, shopPipeline)), push(w.commit(2, shopPipeline)), push(w.commit(3, ""))
	other.Revision.Ref, tag.Revision.Ref = "refs/heads/feature/x", "refs/tags/v1"
	last := push(w.commit(4, shopPipeline))
	for _, d := range []builder.Delivery{other, tag, none, last} {
		for range 2 { // each comes twice
			if err := loop.loop.Deliver(within(t), d); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.good(w.ends(loop, last))
	eventually(t, func() (bool, any) {
		n, err := w.waiting(loop)
		return err == nil && n == 0, n
	})
	runs, err := loop.loop.Runs(within(t), builder.RunFilter{})
	if err != nil || len(runs) != 1 || runs[0].ID != deliveredID(last) {
		t.Errorf("%+v %v", runs, err)
	}
}

// waiting returns how many deliveries were not handled yet.
func (w *world) waiting(p *process) (uint64, error) {
	return p.q.Deliveries.Waiting(w.t.Context())
}

func TestBrokenDefinitionFailsItsRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop()
	for n, c := range map[int]struct{ definition, want string }{
		1: {"name: shop\nstages:\n  - name: a\n    stepz: []\n", ".pipeline.yml:4:5: "},
		2: {"name: shop\nstages: [", ".pipeline.yml:"},
	} {
		d := push(w.commit(n, c.definition))
		if err := loop.loop.Deliver(within(t), d); err != nil {
			t.Fatal(err)
		}
		if r := w.ends(loop, d); r.State != builder.Failed || !strings.Contains(r.Reason, c.want) || r.Finished.IsZero() {
			t.Errorf("%+v", r)
		}
	}
	gone := push(gitsource.ObjectID(strings.Repeat("e", 40)))
	if err := loop.loop.Deliver(within(t), gone); err != nil {
		t.Fatal(err)
	}
	if r := w.ends(loop, gone); r.State != builder.Failed || !strings.Contains(r.Reason, "not found") {
		t.Errorf("%+v", r)
	}
}

func TestGitHostAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.broken = gitsource.ErrUnreachable
	loop := w.startLoop()
	w.startWorker()
	d := push(w.commit(1, shopPipeline))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, any) { // it was tried, and is waiting
		n, err := w.waiting(loop)
		return err == nil && n == 1, n
	})
	if _, err := loop.loop.Run(within(t), deliveredID(d)); !errors.Is(err, builder.ErrNotFound) {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.broken = nil
	w.mu.Unlock()
	w.good(w.ends(loop, d))
}

const failing = `name: shop
stages:
  - name: flaky
    retries: 2
    steps: [{run: "echo once; exit 3"}]
  - name: after
    needs: [flaky]
    steps: [{run: "true"}]
  - name: last
    needs: [after]
    steps: [{run: "true"}]
  - name: beside
    steps: [{run: "echo hunter2-hunter2; printf hunter2-hunter2 | base64"}, {run: "true"}]
`

func TestFailureIsRetriedAndSkipsWhatNeedsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop()
	w.startWorker()
	d := push(w.commit(1, failing))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	r := w.ends(loop, d)
	if r.State != builder.Failed || r.Reason != "failed: flaky" {
		t.Errorf("%s %s", r.State, r.Reason)
	}
	want := []builder.State{builder.Failed, builder.Skipped, builder.Skipped, builder.Succeeded}
	for i, j := range r.Jobs {
		if j.State != want[i] {
			t.Errorf("%+v", j)
		}
	}
	if j := r.Jobs[0]; j.Attempt != 3 || j.Steps[0].ExitCode != 3 || !strings.Contains(j.Reason, "exit code 3") {
		t.Errorf("%+v", j)
	}
	if log := w.logOf(loop, r.ID, "flaky"); strings.Count(log, "stdout: once") != 3 {
		t.Error(log)
	}
	if log := w.logOf(loop, r.ID, "beside"); strings.Count(log, "stdout: [secret]") != 2 {
		t.Error(log)
	}
	again, err := loop.loop.Retry(within(t), r.ID, "bob")
	if err != nil || again.ID == r.ID || again.Trigger.Kind != "retry" || again.Trigger.Delivery != r.ID || again.Trigger.Actor != "bob" || again.Trace == r.Trace {
		t.Fatalf("%+v %v", again, err)
	}
	eventually(t, func() (bool, any) {
		r, err := loop.loop.Run(t.Context(), again.ID)
		return err == nil && r.State == builder.Failed, r
	})
	runs, err := loop.loop.Runs(within(t), builder.RunFilter{Repo: "shop", Commit: d.Revision.ID, States: []builder.State{builder.Failed}})
	if err != nil || len(runs) != 2 || runs[0].ID != again.ID {
		t.Errorf("%+v %v", runs, err)
	}
	if _, err := loop.loop.Retry(within(t), "no-such", "bob"); !errors.Is(err, builder.ErrNotFound) {
		t.Error(err)
	}
}

const gated = `name: shop
stages:
  - name: slow
    timeout: %s
    steps: [{run: "gate slow"}]
  - name: after
    needs: [slow]
    steps: [{run: "true"}]
`

func TestCancelStopsWhatRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop()
	w.startWorker()
	d := push(w.commit(1, fmt.Sprintf(gated, "1h")))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	gate := w.gate("slow")
	<-gate.reached
	if err := loop.loop.Cancel(within(t), deliveredID(d), "bob", "wrong branch"); err != nil {
		t.Fatal(err)
	}
	r := w.ends(loop, d)
	if r.State != builder.Cancelled || r.Reason != "cancelled by bob: wrong branch" || r.Jobs[0].State != builder.Cancelled || r.Jobs[1].State != builder.Cancelled {
		t.Errorf("%+v", r)
	}
	<-gate.killed
	if err := loop.loop.Cancel(within(t), r.ID, "bob", ""); err != nil {
		t.Error(err)
	}
}

func TestTimeoutFailsTheJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop()
	w.startWorker()
	d := push(w.commit(1, fmt.Sprintf(gated, "1s")))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	r := w.ends(loop, d)
	if r.State != builder.Failed || r.Jobs[0].Reason != "timed out after 1s" || r.Jobs[0].Steps[0].State != builder.Failed || r.Jobs[1].State != builder.Skipped {
		t.Errorf("%+v", r)
	}
}

func TestIsolationIsRequired(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop()
	w.startWorker()
	d := push(w.commit(1, "name: shop\nisolation: isolated\nstages: [{name: a, steps: [{run: touch here}]}]\n"))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	r := w.ends(loop, d)
	if r.State != builder.Failed || len(r.Jobs) != 1 || !strings.Contains(r.Jobs[0].Reason, "requires isolation") || r.Jobs[0].Tier != "none" || len(r.Jobs[0].Missing) != 1 {
		t.Errorf("%+v", r)
	}
	if len(w.commands) > 0 {
		t.Errorf("executed %q", w.commands)
	}
}

func TestNothingUnsignedIsPromoted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signErr = errors.New("the registry does not answer")
	loop := w.startLoop(func(_ *process, o *Options) { o.Patience = 300 * time.Millisecond })
	w.startWorker()
	d := push(w.commit(1, shopPipeline))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	r := w.ends(loop, d)
	if r.State != builder.Failed || r.Jobs[1].State != builder.Failed || !strings.Contains(r.Jobs[1].Reason, "not attested: ") || len(r.Jobs[1].Images) > 0 || r.Jobs[2].State != builder.Skipped {
		t.Errorf("%+v", r)
	}
	if w.asked > 0 {
		t.Error("promoted")
	}
}

func TestPromotionAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(n int) (Promoted, error)
		state  builder.State
		want   string
	}{
		"a host that is away for a while": {func(n int) (Promoted, error) {
			if n < 4 {
				return Promoted{}, gitsource.ErrUnreachable
			}
			return Promoted{Commit: "c0ffee", Branch: "promote/dev/shop", URL: "https://git.example/pulls/1"}, nil
		}, builder.Succeeded, ""},
		"refused":    {func(int) (Promoted, error) { return Promoted{}, fmt.Errorf("no application shop: %w", ErrRefused) }, builder.Failed, "no application shop"},
		"held":       {func(int) (Promoted, error) { return Promoted{Held: true, Reason: "a hold by ann"}, nil }, builder.Failed, "a hold by ann"},
		"superseded": {func(int) (Promoted, error) { return Promoted{Superseded: true, Reason: "a newer one is there"}, nil }, builder.Succeeded, "a newer one is there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.answer = func(Promotion) (Promoted, error) { return c.answer(w.asked) }
			loop := w.startLoop()
			w.startWorker()
			d := push(w.commit(1, shopPipeline))
			if err := loop.loop.Deliver(within(t), d); err != nil {
				t.Fatal(err)
			}
			r := w.ends(loop, d)
			if j := r.Jobs[2]; j.State != c.state || r.State != c.state || !strings.Contains(j.Reason, c.want) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestLogsAreFollowedToTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.startLoop()
	w.startWorker()
	d := push(w.commit(1, "name: shop\nstages: [{name: a, steps: [{run: seq 1 3000}, {run: gate slow}, {run: echo last}]}]\n"))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	gate := w.gate("slow")
	<-gate.reached
	var got []builder.Log
	for line, err := range loop.loop.Logs(within(t), deliveredID(d), "a", 0, true) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, line); len(got) == 3000 {
			gate.unlock() // it is read while it is written
		}
	}
	if len(got) != 3001 || got[2999].Text != "3000" || got[3000].Text != "last" || got[3000].Step != 2 || got[3000].Attempt != 1 {
		t.Fatalf("%d lines, the last %+v", len(got), got[len(got)-1])
	}
	n := 0
	for line, err := range loop.loop.Logs(within(t), deliveredID(d), "a", got[2998].Sequence, true) {
		if err != nil || line.Text != got[2999+n].Text {
			t.Fatal(line, err)
		}
		n++
	}
	if n != 2 {
		t.Errorf("%d lines behind the 2,999th", n)
	}
	for _, err := range loop.loop.Logs(within(t), deliveredID(d), "b", 0, true) {
		if !errors.Is(err, builder.ErrNotFound) {
			t.Error(err)
		}
	}
}

// TestCancelledPromotionIsNotTriedForEver: it may be in Git already, so it is not called cancelled; and it is not tried again.
func TestCancelledPromotionIsNotTriedForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tried := make(chan struct{}, 1)
	w.answer = func(Promotion) (Promoted, error) {
		select {
		case tried <- struct{}{}:
		default:
		}
		return Promoted{}, gitsource.ErrUnreachable
	}
	loop := w.startLoop()
	w.startWorker()
	d := push(w.commit(1, shopPipeline))
	if err := loop.loop.Deliver(within(t), d); err != nil {
		t.Fatal(err)
	}
	<-tried
	if err := loop.loop.Cancel(within(t), deliveredID(d), "bob", ""); err != nil {
		t.Fatal(err)
	}
	r := w.ends(loop, d)
	if j := r.Jobs[2]; r.State != builder.Failed || j.State != builder.Failed || !strings.Contains(j.Reason, "cancelled by bob while it was tried: the Git host cannot be reached") {
		t.Errorf("%+v", r)
	}
}
