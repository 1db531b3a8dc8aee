package progressive

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// patient compares versions like errors5xx, and waits for data as long as it takes.
const patient = `{canary: {progressDeadline: 1m, steps: [{weight: 40}, {analysis: [{name: errors, interval: 1s, count: 10, inconclusiveLimit: 600, consecutiveErrorLimit: 600,
  errors: {gateway: Traefik, minSamples: 60}}]}]}}`

// The gateway is deleted in the middle of an analysis, and with it all that it has counted. Nobody can say how a version does
// meanwhile, so it waits with the traffic that it has; with a gateway again it goes on.
func TestGatewayIsDeleted(t *testing.T) {
	p := newPort(t)
	s := p.begin(t, "skiff", patient)
	all := s.asked(40)
	s.promote(p.better)
	s.eventually(func() error { return s.said("canary ") })
	mark := all.mark()
	_, err := p.Cluster.Kubectl(t.Context(), "delete", "pod", "-n", "edge", "traefik", "--grace-period=1", "--wait")
	s.must(err)
	s.eventually(func() error {
		if err := s.said("series"); err != nil { // there are none, or one is gone
			return err
		}
		if got := all.since(mark); len(got) < 100 || len(got.faults("")) == 0 {
			return fmt.Errorf("people had %d answers, and none was a fault", len(got))
		}
		return nil
	})
	if status := s.status(); status.Phase != v1alpha1.PhaseProgressing || status.Course == nil || status.Course.Step != 1 || status.Course.Weight != 40 {
		t.Errorf("without a gateway the Rollout is %+v", status)
	}
	for _, args := range [][]string{
		{"apply", "-f", filepath.Join(p.Dir, "edge.yaml")},
		{"wait", "--for=condition=Ready", "--timeout=90s", "-n", "edge", "pod/traefik"},
	} {
		_, err := p.Cluster.Kubectl(t.Context(), args...)
		s.must(err)
	}
	s.runs(p.better)
	if v := s.status().Verdict; v == nil || v.Outcome != v1alpha1.VerdictPass {
		t.Errorf("the verdict is %+v", v)
	}
	commits, err := p.World.Log(t.Context(), 200)
	s.must(err)
	for _, c := range commits {
		if len(trailer.Parse(c.Message).Reverts) > 0 && strings.HasPrefix(c.Message, "Revert skiff ") {
			t.Errorf("a good version was taken back:\n%s", c.Message)
		}
	}
}

// said fails unless the metric of the step said a word last.
func (s story) said(word string) error {
	course := s.status().Course
	if course == nil || len(course.Tallies) != 1 || !strings.Contains(course.Tallies[0].Said, word) {
		return fmt.Errorf("no metric says %q, but %+v", word, course)
	}
	return nil
}
