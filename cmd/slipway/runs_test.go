package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/console/chain"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
)

const (
	runID    = "20261101-080000-000-0123456789"
	sourceID = gitsource.ObjectID("00000000000000000000000000000000000000c0")
	traceID  = "0123456789abcdef0123456789abcdef"
)

var eight = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

// builds is a build half over values.
type builds struct {
	mu   sync.Mutex
	runs []builder.Run
	said []string
}

func shopRun() builder.Run {
	_, digest, _ := strings.Cut(second, "@")
	step := func(name string, state builder.State) builder.Step {
		return builder.Step{Name: name, State: state, Started: eight, Finished: eight.Add(20 * time.Second)}
	}
	return builder.Run{
		ID: runID, Repo: builder.Repo{Name: "shop"}, Pipeline: "shop", Trace: traceID, State: builder.Failed, Reason: "job test failed",
		Revision: gitsource.Revision{URL: "https://git.example/shop.git", Ref: "refs/heads/main", ID: sourceID},
		Trigger:  builder.Trigger{Kind: "push", ReceivedAt: eight}, Created: eight, Finished: eight.Add(time.Minute),
		Jobs: []builder.Job{
			{Name: "image", State: builder.Succeeded, Tier: "runc-root", Started: eight, Finished: eight.Add(30 * time.Second), Steps: []builder.Step{step("go-image", builder.Succeeded)}, Images: []builder.Image{{Repository: "example.com/shop", Digest: digest}}},
			{Name: "test", State: builder.Failed, Reason: "step unit: exit code 1", Tier: "none", Missing: []string{"no user namespaces"}, Started: eight, Finished: eight.Add(time.Minute), Steps: []builder.Step{step("checkout", builder.Succeeded), step("unit", builder.Failed)}},
			{Name: "ship", State: builder.Skipped, Needs: []string{"test"}, Promotion: &builder.Promotion{App: "shop", Environment: "dev", Commit: sourceID}},
		},
	}
}

func (b *builds) Runs(_ context.Context, f builder.RunFilter) ([]builder.Run, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, fmt.Sprintf("runs %+v", f))
	var found []builder.Run
	for _, run := range b.runs {
		_, digest, _ := strings.Cut(second, "@")
		if (f.Commit == "" || f.Commit == run.Revision.ID) && (f.Trace == "" || f.Trace == run.Trace) && (f.Digest == "" || f.Digest == digest) {
			found = append(found, run)
		}
	}
	return found, nil
}

func (b *builds) Run(_ context.Context, id string) (builder.Run, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, run := range b.runs {
		if run.ID == id {
			return run, nil
		}
	}
	return builder.Run{}, fmt.Errorf("run %s: %w", id, builder.ErrNotFound)
}

func (b *builds) Logs(_ context.Context, _, job string, from uint64, _ bool) iter.Seq2[builder.Log, error] {
	lines := map[string][]builder.Log{
		"image": {{Sequence: 3, Stream: "stdout", Text: "pushed"}},
		"test": {
			{Sequence: 1, Stream: "slipway", Text: "in main"},
			{Sequence: 4, Step: 1, Stream: "stdout", Text: "\x1b[31mFAIL\x1b[0m \x1b[2J\x1b]0;title\a"},
			{Sequence: 9, Step: 1, Stream: "stderr", Text: "exit 1"},
		},
	}
	return func(yield func(builder.Log, error) bool) {
		for _, line := range lines[job] {
			if line.Sequence > from && !yield(line, nil) {
				return
			}
		}
	}
}

func (b *builds) Cancel(_ context.Context, id, by, reason string) error {
	b.said = append(b.said, "cancel "+id+" by "+by+": "+reason)
	return nil
}

func (b *builds) Retry(_ context.Context, id, by string) (builder.Run, error) {
	b.said = append(b.said, "retry "+id+" by "+by)
	return builder.Run{ID: "fresh"}, nil
}

type noReverts struct{}

func (noReverts) Revert(context.Context, v1alpha1.RevertRequest) (console.Reverted, error) {
	return console.Reverted{}, nil
}

// serve starts an API over builds, and returns the environment of somebody who may use it.
func (b *builds) serve(t *testing.T, tracer console.Tracer) map[string]string {
	t.Helper()
	secret, line, err := console.NewToken("ada", console.Write)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := console.ParseTokens([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	s, err := console.New(console.Options{
		Repositories: []console.Repository{{URL: "x", Branch: "main", Reverts: noReverts{}}}, Runs: b, Control: b, Tracer: tracer, Tokens: tokens, Log: logr.Discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s.Handler())
	t.Cleanup(h.Close)
	return map[string]string{"SLIPWAY_SERVER": h.URL, "SLIPWAY_TOKEN": secret.Reveal()}
}

func TestRunsOutput(t *testing.T) {
	run := shopRun()
	live := run
	live.State, live.Reason, live.Finished, live.ID = builder.Running, "", time.Time{}, "20261101-080100-000-abcdefabcd"
	live.Jobs = []builder.Job{{Name: "test", State: builder.Running}}
	for _, output := range []string{"human", "json"} {
		printed(t, "run", output, func(g *globals) error {
			return g.print(run, func(w io.Writer) { printRun(w, run, eight.Add(90*time.Second)) })
		})
	}
	printed(t, "runs", "human", func(g *globals) error {
		printRuns(g.out, []builder.Run{live, run}, eight.Add(90*time.Second))
		return nil
	})
}

func TestRuns(t *testing.T) {
	b := &builds{runs: []builder.Run{shopRun()}}
	env := b.serve(t, nil)
	code, out, complaint := command(t, env, "runs", "--repository", "shop", "--state", "failed,Running", "--limit", "3")
	if code != exitDone || !strings.Contains(out, runID+"  shop") || !strings.Contains(b.said[0], "Repo:shop") || !strings.Contains(b.said[0], "States:[Failed Running]") {
		t.Errorf("%d %s%s %s", code, out, complaint, b.said)
	}
	var run builder.Run
	code, out, _ = command(t, env, "runs", runID, "-o", "json")
	if err := json.Unmarshal([]byte(out), &run); code != exitDone || err != nil || run.Revision.ID != sourceID || run.Jobs[1].State != builder.Failed {
		t.Errorf("%d %v %s", code, err, out)
	}
	b.runs[0].State = builder.Running
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"runs", "cancel", runID, "-m", "wrong branch"}, exitDone, "is being cancelled"},
		{[]string{"runs", "cancel", runID}, exitUsage, "message"},
		{[]string{"runs", "cancel", runID, "-m", " "}, exitUsage, "say why"},
		{[]string{"runs", "retry", runID}, exitDone, "slipway logs fresh -f"},
		{[]string{"runs", "nowhere"}, exitFailed, "run nowhere: not found"},
		{[]string{"runs", "--state", "done"}, exitUsage, "is none of"},
		{[]string{"runs", "--commit", "0123"}, exitUsage, "give all of its digits"},
		{[]string{"runs", "--limit", "0"}, exitUsage, "want 1 to 200"},
		{[]string{"runs", "--server", "http://192.0.2.1"}, exitUsage, "would show the token"},
		{[]string{"runs", "--server-ca", "/nowhere"}, exitUsage, "--server-ca"},
		{[]string{"runs", "--token-file", "/nowhere"}, exitUsage, "--token-file"},
		{[]string{"logs", runID, "deploy"}, exitFailed, "it has image, test, ship"},
	} {
		if code, out, complaint := command(t, env, c.args...); code != c.code || !strings.Contains(out+complaint, c.want) {
			t.Errorf("%v: %d %s%s, want %d %s", c.args, code, out, complaint, c.code, c.want)
		}
	}
	if want := "cancel " + runID + " by ada: wrong branch"; b.said[len(b.said)-2] != want {
		t.Error(b.said)
	}
	if code, _, complaint := command(t, nil, "runs"); code != exitUsage || !strings.Contains(complaint, "SLIPWAY_SERVER") {
		t.Errorf("%d %s", code, complaint)
	}
	env["SLIPWAY_TOKEN"] = "slipway_other"
	if code, _, complaint := command(t, env, "runs"); code != exitFailed || !strings.Contains(complaint, "the token is not known") || strings.Contains(complaint, "slipway_other") {
		t.Errorf("%d %s", code, complaint)
	}
}

func TestTokenFile(t *testing.T) {
	env := (&builds{runs: []builder.Run{shopRun()}}).serve(t, nil)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(env["SLIPWAY_TOKEN"]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, complaint := command(t, nil, "runs", "--server", env["SLIPWAY_SERVER"], "--token-file", file); code != exitDone {
		t.Error(complaint)
	}
}

const testLines = "test/checkout | in main\ntest/unit | \x1b[31mFAIL\x1b[0m \\x1b[2J\\x1b]0;title\\x07\ntest/unit ! exit 1\n"

func TestLogs(t *testing.T) {
	b := &builds{runs: []builder.Run{shopRun()}}
	env := b.serve(t, nil)
	if code, out, complaint := command(t, env, "logs", runID); code != exitDone || out != "image/go-image | pushed\n"+testLines {
		t.Errorf("%d %q %s", code, out, complaint)
	}
	code, out, complaint := command(t, env, "logs", runID, "test", "-f")
	if want := testLines + "== test: Failed step unit: exit code 1\n"; code != exitFailed || out != want || !strings.Contains(complaint, "job test: Failed: step unit: exit code 1") {
		t.Errorf("%d %q %s", code, out, complaint)
	}
	code, out, complaint = command(t, env, "logs", runID, "-f")
	for _, want := range []string{"image/go-image | pushed\n", "== image: Succeeded\n", "test/unit ! exit 1\n", "== ship: Skipped\n", "== run " + runID + ": Failed job test failed\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in %q", want, out)
		}
	}
	if code != exitFailed || !strings.Contains(complaint, "Failed: job test failed") {
		t.Errorf("%d %s", code, complaint)
	}
	if code, _, complaint := command(t, env, "logs", runID, "image", "-f"); code != exitDone || complaint != "" {
		t.Errorf("%d %s", code, complaint)
	}
	var line struct {
		Job      string
		Sequence int
		Text     string
	}
	if _, out, _ := command(t, env, "logs", runID, "image", "-f", "-o", "json"); json.Unmarshal([]byte(out), &line) != nil || line.Job != "image" || line.Sequence != 3 || line.Text != "pushed" {
		t.Errorf("%q", out)
	}
}

// stages are those of a trace in JSON, without what could not be read.
func stages(t *testing.T, out string) []chain.Stage {
	t.Helper()
	var all, known []chain.Stage
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err, out)
	}
	for _, stage := range all {
		if stage.Stage != "unknown" {
			known = append(known, stage)
		}
	}
	return known
}

// TestTraceWithRuns: each link of a chain leads to the same chain, here and at the server.
func TestTraceWithRuns(t *testing.T) {
	f := newFleet(t)
	f.slipway(exitDone, "promote", "shop", "--env", "dev", "--image", second)
	promotion := f.tip()
	f.slipway(exitDone, "rollback", "shop", "--env", "dev", "-m", "slow")
	revert := f.tip()
	_, digest, _ := strings.Cut(second, "@")

	b := &builds{runs: []builder.Run{shopRun()}}
	store, err := wire.OpenRepository(t.Context(), f.dir, "", policy.Secret{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	env := b.serve(t, console.Chains{Repos: []console.TracedRepo{{URL: f.dir, Branch: "main", Repo: store}}, Runs: b})
	for key, value := range env {
		f.env[key] = value
	}
	server, err := (&serverFlags{}).optional(&globals{env: func(key string) string { return env[key] }})
	if err != nil {
		t.Fatal(err)
	}
	want := stages(t, f.slipway(exitDone, "trace", digest, "-o", "json"))
	var names []string
	for _, stage := range want {
		names = append(names, stage.Stage)
	}
	if got := strings.Join(names, " "); got != "source run built attested committed promoted reverted held" {
		t.Errorf("%s\n%+v", got, want)
	}
	for _, subject := range []string{string(sourceID), runID, traceID, second, promotion, promotion[:8], revert} {
		if got := stages(t, f.slipway(exitDone, "trace", subject, "-o", "json")); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s:\ngot  %v\nwant %v", subject, got, want)
		}
		if len(subject) == 8 {
			continue // a server wants names in full
		}
		if got, err := server.Trace(t.Context(), subject); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("server: %s: %v\ngot  %v\nwant %v", subject, err, got, want)
		}
	}
	f.says(f.slipway(exitFailed, "trace", "shop/web"), "shop/web")

	f.env["SLIPWAY_TOKEN"] = "other"
	out := f.slipway(exitDone, "trace", digest)
	f.says(out, "the token is not known")
	f.says(out, "promoted")
}
