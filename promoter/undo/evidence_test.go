package undo_test

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/undo"
)

var update = flag.Bool("update", false, "write golden files")

// judged is a Verdict with all that there can be.
func judged() undo.Evidence {
	e := evidence
	when, code := metav1.NewTime(at.UTC().Truncate(1e9)), int32(1)
	e.Verdict.Reason, e.Verdict.Message = "WorseThanBaseline", "metric errors: the canary is worse than the baseline"
	e.Verdict.At, e.Verdict.Bundle, e.Verdict.SetDigest = when, digest("b"), digest("c")
	e.Verdict.Evidence = &v1alpha1.Evidence{
		Started: &when,
		Metrics: []v1alpha1.MetricEvidence{
			{
				Name: "errors", Outcome: "Fail", Passed: 3, Failed: 1, Since: &when, Last: &when, Said: "canary 12 of 100 bad (12%), baseline 0 of 900 (0%), p=1e-05",
				Queries: []string{`sum by (pod) (requests{pod=~"web-canary-.+",code=~"5.."})`, `sum by (pod) (requests{pod=~"web-.+",code=~"5.."})`},
				Limit:   v1alpha1.MetricLimit{Alpha: "0.05", Effect: "0.005", MinSamples: 100, Count: 5},
				Test: &v1alpha1.TestEvidence{
					EValue: "100000", P: "1e-05", Effect: "0.12", Canary: v1alpha1.RequestCounts{Total: 100, Bad: 12}, Baseline: v1alpha1.RequestCounts{Total: 900},
				},
			},
			{Name: "load", Said: "4.2", Passed: 2, Limit: v1alpha1.MetricLimit{Max: "5", Count: 5}, Queries: []string{`load{pod=~"web-canary-.+"} < 2 && 1 > 0`}},
		},
		Trail: []v1alpha1.TrailPoint{
			{At: when, What: "Started"},
			{At: when, What: "Weight", Step: 1, Weight: 20, Header: &v1alpha1.RolloutHeader{Name: "x-canary", Value: "yes\nSlipway-Irreversible: true"}},
			{At: when, What: "Failed", Step: 2},
		},
		Pods: []v1alpha1.PodEvidence{{
			Name: "web-canary-7f9-abc",
			Containers: []v1alpha1.ContainerEvidence{{
				Name: "web", Restarts: 2, Waiting: "CrashLoopBackOff", ExitCode: &code, Reason: "Error", Last: []string{"panic: no database", "Slipway-Irreversible: true"},
			}},
			Events: []v1alpha1.EventEvidence{{At: when, Reason: "Unhealthy", Message: "Readiness probe failed: 503", Count: 4}},
		}},
	}
	return e
}

// TestMessageInFull holds the whole text, for people and for machines.
func TestMessageInFull(t *testing.T) {
	message := undo.Message(facts, judged())
	const golden = "testdata/message.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(message), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if message != string(want) {
		t.Errorf("got\n%s\nwant\n%s", message, want)
	}
	if trailer.Parse(message).Irreversible {
		t.Error("what a pod wrote counts as a trailer")
	}
	record, is := undo.ParseRecord(message)
	if !is || record.Schema != undo.RecordSchema || record.Failed != string(facts.Failed) || record.Trace != "t1" || record.Omitted {
		t.Fatalf("%v %+v", is, record)
	}
	whole, err := json.Marshal(judged().Verdict.Evidence)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(record.Verdict.Evidence); err != nil || string(got) != string(whole) {
		t.Errorf("%v: got %s, want %s", err, got, whole)
	}
	if m := record.Verdict.Evidence.Metrics[1]; m.Queries[0] != `load{pod=~"web-canary-.+"} < 2 && 1 > 0` {
		t.Errorf("query %q", m.Queries[0])
	}
	// Appending anew, as whoever merges may, loses nothing.
	if again := trailer.Append(message, trailer.Parse(message)); again != message {
		t.Errorf("appended anew:\n%s", again)
	}
}

// TestGitReadsTheTrailers: for Git itself the block is one of trailers, and the evidence is one of them.
func TestGitReadsTheTrailers(t *testing.T) {
	git := exec.Command("git", "interpret-trailers", "--parse")
	message := undo.Message(facts, judged())
	git.Stdin = strings.NewReader(message)
	out, err := git.Output()
	if err != nil {
		t.Fatalf("git interpret-trailers: %v", err)
	}
	block := trailer.Parse(message)
	for _, want := range []string{"Slipway-Evidence: " + block.Evidence, "Slipway-Reverts: " + string(facts.Failed), "Slipway-Verdict: " + block.Verdict} {
		if !strings.Contains(string(out), want+"\n") {
			t.Errorf("git finds\n%s\nwithout %s", out, want)
		}
	}
}

func TestRecordIsBounded(t *testing.T) {
	e := judged()
	long := strings.Repeat("x", 300)
	for range 8 {
		m := e.Verdict.Evidence.Metrics[0]
		m.Queries = []string{long, long, long, long}
		e.Verdict.Evidence.Metrics = append(e.Verdict.Evidence.Metrics, m)
	}
	for range 40 {
		e.Verdict.Evidence.Pods = append(e.Verdict.Evidence.Pods, v1alpha1.PodEvidence{Name: long, Reason: long})
	}
	message := undo.Message(facts, e)
	record, is := undo.ParseRecord(message)
	if !is || !record.Omitted || len(trailer.Parse(message).Evidence) > 16<<10 || len(record.Verdict.Evidence.Metrics) != 3 || len(record.Verdict.Evidence.Trail) != 3 {
		t.Errorf("%v %+v", is, record)
	}
	e.Verdict.Message = strings.Repeat(long, 100)
	if record, is := undo.ParseRecord(undo.Message(facts, e)); !is || record.Verdict.Evidence != nil || len(record.Verdict.Message) != 1<<10 {
		t.Errorf("%v %+v", is, record)
	}
	if _, is := undo.ParseRecord("Subject\n\nSlipway-Evidence: {}\n"); is {
		t.Error("another schema is read")
	}
}
