package main

import (
	"bytes"
	"io"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/console/chain"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func printed(t *testing.T, name, output string, print func(g *globals) error) {
	t.Helper()
	var out bytes.Buffer
	g := &globals{out: &out, output: output}
	if err := print(g); err != nil {
		t.Fatal(err)
	}
	golden(t, "output/"+name+"."+output, out.String())
}

func TestStatusOutput(t *testing.T) {
	const revision = "refs/heads/main@sha1:0123456789abcdef0123456789abcdef01234567"
	set := func(s string) *v1alpha1.SetRef { return &v1alpha1.SetRef{Revision: revision, SetDigest: s} }
	good := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "shop-dev"}}
	good.Spec = v1alpha1.ApplicationSpec{App: "shop", Environment: "dev", Path: "apps/shop/dev"}
	good.Status = v1alpha1.ApplicationStatus{
		Applied: set("sha256:aa"), Objects: 4,
		History:    []v1alpha1.HistoryEntry{{SetDigest: "sha256:aa", Images: []string{second}}},
		Conditions: []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Succeeded", Message: "it is applied and healthy"}},
	}
	bad := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "shop-production"}}
	bad.Spec = v1alpha1.ApplicationSpec{App: "shop", Environment: "production", Path: "apps/shop/production"}
	bad.Status = v1alpha1.ApplicationStatus{
		Applied: set("sha256:bb"), Objects: 5, Marks: []v1alpha1.Mark{{SetDigest: "sha256:cc", Revision: revision}},
		Conditions: []metav1.Condition{{Type: "Ready", Status: metav1.ConditionFalse, Reason: "HealthFailed", Message: "1 of 3 available"}},
	}
	rollouts := []v1alpha1.Rollout{{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{manifests.LabelApplication: "shop-production"}},
		Status:     v1alpha1.RolloutStatus{Phase: v1alpha1.PhaseFailed},
	}}
	lines := []applicationStatus{
		statusOf(good, rollouts), statusOf(bad, rollouts), statusOf(&v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, rollouts),
	}
	for _, output := range []string{"human", "json"} {
		printed(t, "status", output, func(g *globals) error { return g.print(lines, func(w io.Writer) { printStatus(w, lines) }) })
	}
}

func TestDiffOutput(t *testing.T) {
	for name, diffs := range map[string][]applicationDiff{
		"diff-none": {{Application: "shop-dev", Revision: "0123", Differences: []wire.Difference{}, Unchanged: 3}},
		"diff": {
			{Application: "shop-dev", Environment: "dev", Revision: "0123", Differences: []wire.Difference{}, Unchanged: 3},
			{Cluster: "eu", Application: "shop-production", Environment: "production", Revision: "0123", Differences: []wire.Difference{
				{Object: "Secret shop/token", Verb: "change", Fields: []string{"data.token: (masked) -> another value"}},
				{Object: "apps/Deployment shop/web", Verb: "create", Note: "not tried: its namespace comes with it"},
				{Object: "batch/Job shop/migrate", Verb: "refuse", Error: "spec.template: field is immutable"},
				{Object: "Service shop/old", Verb: "delete"},
				{Object: "Namespace shop", Verb: "keep", Note: "left Git; Namespace is kept"},
			}, Held: "would delete 12 of 13 objects"},
			{Application: "broken", Revision: "0123", Differences: []wire.Difference{}, Error: "apps/broken/a.yaml:1: not valid YAML"},
		},
	} {
		for _, output := range []string{"human", "json"} {
			printed(t, name, output, func(g *globals) error { return g.print(diffs, func(w io.Writer) { printDiffs(w, terminal{}, diffs) }) })
		}
	}
}

func TestTraceOutput(t *testing.T) {
	at := time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
	stages := []chain.Stage{
		{Stage: "committed", ID: "0123456789abcdef0123456789abcdef01234567", At: at, Detail: "Ada: Promote shop"},
		{Stage: "promoted", ID: second, At: at, Detail: "shop in dev, was not there"},
		{Stage: "verdict", ID: "sha256:2222222222222222222222222222222222222222222222222222222222222222", At: at.Add(time.Minute), Detail: "shop-dev: Fail DeadlineExceeded: 1 of 3 available"},
		{Stage: "held", ID: ".slipway/holds/dev/shop.yaml", At: at.Add(2 * time.Minute), Detail: "not available"},
	}
	for _, output := range []string{"human", "json"} {
		printed(t, "trace", output, func(g *globals) error { return g.print(stages, func(w io.Writer) { printTrace(w, stages) }) })
	}
}
