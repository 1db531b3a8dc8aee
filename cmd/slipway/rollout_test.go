package main

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/slipway-cd/slipway/e2e/world"
)

const canary = `apiVersion: slipway.dev/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  workloadRef: {name: web}
  strategy:
    canary:
      progressDeadline: 1m
      steps: [{weight: 50}, {pause: {}}]
`

// From a commit through the canary's pause, a person's yes, to the end: the whole agent and the command line.
func TestRolloutPromote(t *testing.T) {
	d := newDeck(t)
	d.application("sailing", "", map[string]string{"production/web.yaml": workload, "production/rollout.yaml": canary})
	d.says(d.slipway(exitDone, "rollout", "status", "sailing/web"), "sailing/web is Healthy", "verdict Pass")
	d.says(d.slipway(exitFailed, "rollout", "promote", "sailing/web"), "waits for nobody")
	d.says(d.slipway(exitUsage, "rollout", "promote", "web"), "NAMESPACE/NAME")
	d.says(d.slipway(exitFailed, "rollout", "status", "sailing/other"), "sailing/other")

	commit, err := d.Commit(d.Context(), "Change", world.Write("apps/sailing/production/web.yaml", strings.Replace(workload, "{name: web, image", "{name: web, env: [{name: A, value: b}], image", 1)))
	d.must(err)
	var status rolloutStatus
	d.eventually(func() error {
		if d.read(exitDone, &status, "rollout", "status", "sailing/web"); status.Step != 2 || status.Weight != 50 || status.Stable == status.Target {
			return fmt.Errorf("status: %+v", status)
		}
		return nil
	})
	d.says(d.slipway(exitNo, "status", "sailing", "--check"), "Progressing")
	d.says(d.slipway(exitDone, "rollout", "promote", "sailing/web"), "step 2 of Bundle "+status.Target)
	d.must(d.WaitReady(d.Context(), atMost, commit, "sailing"))

	var deployment appsv1.Deployment
	d.get("sailing", "web", &deployment)
	if pod := deployment.Spec.Template.Spec.Containers[0]; len(pod.Env) != 1 || *deployment.Spec.Replicas != 2 {
		t.Errorf("in the end there are %d pods with %v", *deployment.Spec.Replicas, pod.Env)
	}
}
