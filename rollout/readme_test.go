package rollout_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// TestReadme holds that the Rollout which README shows is one that the API server and the loop take.
func TestReadme(t *testing.T) {
	content, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(content), "apiVersion: slipway.dev/v1alpha1\nkind: Rollout\n")
	example, _, closed := strings.Cut(after, "```")
	if !found || !closed {
		t.Fatal("README shows no Rollout any more")
	}
	if err := yaml.UnmarshalStrict([]byte(example), new(v1alpha1.Rollout)); err != nil {
		t.Fatal(err)
	}
	var shown struct {
		Spec struct {
			Strategy map[string]any
			Routes   []any
		}
	}
	if err := yaml.Unmarshal([]byte(example), &shown); err != nil {
		t.Fatal(err)
	}
	b := newBed(t)
	b.strategy, b.routes = shown.Spec.Strategy, shown.Spec.Routes
	first := b.rollOut(time.Minute, b.withRoutes("1", "hello"))
	b.reaches(v1alpha1.PhaseHealthy, first)
	second := b.rollOut(time.Minute, b.withRoutes("2", "hello"))
	b.eventually("testers reach the new version, and a person is waited for", func() bool {
		course := b.rollout().Status.Course
		return course != nil && course.Step == 1 && course.Header != nil
	})
	b.reaches(v1alpha1.PhaseProgressing, second)
}
