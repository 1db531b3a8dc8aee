package expression_test

import (
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/reconciler/expression"
)

func TestExpressions(t *testing.T) {
	variables := map[string]any{
		"self": map[string]any{"metadata": map[string]any{"labels": map[string]any{"schema": "v3"}}},
		"dep": map[string]any{"status": map[string]any{"conditions": []any{
			map[string]any{"type": "Ready", "status": "True"}, map[string]any{"type": "Drifted", "status": "False"},
		}, "objects": int64(3)}},
	}
	for source, want := range map[string]string{
		"true":                      "true",
		"dep.status.objects > 2":    "true",
		"dep.status.objects == 2.0": "false",
		"dep.status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')": "true",
		"dep.status.conditions.filter(c, c.type == 'Lost').all(c, false)":          "true",
		"self.metadata.labels.schema.startsWith('v')":                              "true",
		"has(dep.spec)":                       "false",
		"dep.?spec.?replicas.orValue(0) == 0": "true",
		"dep.spec.replicas == 1":              "error: \"dep.spec.replicas == 1\": no such key: spec",
		"dep.status.objects":                  "error: \"dep.status.objects\": is a int, not a condition",
		"dep.status.objects + ":               "compile: \"dep.status.objects + \": 1:22: Syntax error",
		"other.status == 1":                   "compile: \"other.status == 1\": 1:1: undeclared reference to 'other'",
		"'yes'":                               "compile: \"'yes'\": is a string, not a condition",
		"":                                    "compile: \"\": 1:0: Syntax error",
		"'" + strings.Repeat("x", 5000) + "' == 'x'":                                       "compile: the expression has 5009 bytes, at most 4096 are allowed",
		strings.Repeat("[1,2,3,4,5,6,7,8,9].all(a, ", 6) + "true" + strings.Repeat(")", 6): "error: ",
	} {
		e, err := expression.Compile(source, "self", "dep")
		got := "compile: "
		if err != nil {
			got += err.Error()
		} else if holds, err := e.Holds(variables); err != nil {
			got = "error: " + err.Error()
		} else {
			got = map[bool]string{true: "true", false: "false"}[holds]
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%.100s: got %.300s, want %s", source, got, want)
		}
	}
}

func TestHealth(t *testing.T) {
	h, err := expression.NewHealth(
		"status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')",
		"!has(status.conditions)",
		"self.status.conditions.exists(c, c.type == 'Ready' && c.reason == 'Denied')",
	)
	if err != nil {
		t.Fatal(err)
	}
	condition := func(status, reason string) map[string]any {
		return map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": status, "reason": reason}}}
	}
	for name, c := range map[string]struct {
		object map[string]any
		want   expression.State
		text   string
	}{
		"new":     {map[string]any{}, expression.InProgress, "!has"},
		"ready":   {map[string]any{"status": condition("True", "Issued")}, expression.Current, "exists"},
		"denied":  {map[string]any{"status": condition("False", "Denied")}, expression.Failed, "Denied"},
		"waits":   {map[string]any{"status": condition("False", "Pending")}, expression.InProgress, "not yet"},
		"unclear": {map[string]any{"status": map[string]any{"conditions": int64(1)}}, expression.Unknown, "exists"},
		"of an earlier generation": {map[string]any{
			"metadata": map[string]any{"generation": int64(2)},
			"status":   map[string]any{"observedGeneration": int64(1), "conditions": condition("False", "Denied")["conditions"]},
		}, expression.InProgress, "newest generation"},
	} {
		if state, text := h.Judge(c.object); state != c.want || !strings.Contains(text, c.text) {
			t.Errorf("%s: got %d (%s), want %d", name, state, text, c.want)
		}
	}
	for _, bad := range []struct{ current, inProgress, failed, want string }{
		{"", "", "", "current: "}, {"true", "status.", "", "inProgress: "}, {"true", "", "1", "failed: \"1\": is a int"},
	} {
		if _, err := expression.NewHealth(bad.current, bad.inProgress, bad.failed); err == nil || !strings.HasPrefix(err.Error(), bad.want) {
			t.Errorf("got %v, want %s", err, bad.want)
		}
	}
}

// FuzzHolds: whatever people write, it is an answer or an error, in bounded time.
func FuzzHolds(f *testing.F) {
	f.Add("dep.status.objects > 2")
	f.Add("dep.x.all(a, dep.x.all(b, a == b))")
	f.Fuzz(func(t *testing.T, source string) {
		e, err := expression.Compile(source, "self", "dep")
		if err != nil {
			return
		}
		list := make([]any, 1000)
		for i := range list {
			list[i] = int64(i)
		}
		if holds, err := e.Holds(map[string]any{"self": map[string]any{}, "dep": map[string]any{"x": list}}); holds && err != nil {
			t.Error("an answer and an error")
		}
	})
}
