package main

import (
	"testing"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func TestUnfinished(t *testing.T) {
	for name, c := range map[string]struct {
		phase   v1alpha1.RolloutPhase
		applied string
		want    bool
	}{
		"healthy":                         {v1alpha1.PhaseHealthy, "sha256:1", false},
		"failed, and stable runs":         {v1alpha1.PhaseFailed, "sha256:1", false},
		"on its way":                      {v1alpha1.PhaseProgressing, "sha256:1", true},
		"on its way back":                 {v1alpha1.PhaseReturning, "sha256:1", true},
		"paused, alone":                   {v1alpha1.PhasePaused, "sha256:1", false},
		"paused, with a canary":           {v1alpha1.PhasePaused, "sha256:1 with sha256:2: 4 and 1 replicas, traffic 25", true},
		"failed, and the canary is going": {v1alpha1.PhaseFailed, "sha256:1 alone", true},
	} {
		r := &v1alpha1.Rollout{}
		r.Status.Phase, r.Status.AppliedBundle = c.phase, c.applied
		if got := unfinished(r); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
