package main

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
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
	if len(status.Trail) != 3 || status.Trail[1].Weight != 50 || status.Steps != 3 {
		t.Errorf("status: %+v", status)
	}
	d.says(d.slipway(exitDone, "rollout", "status", "sailing/web"), "step    2 of 3, with 50% of traffic", "trail", "step 1   50%  Weight")

	// A person may hold it, or take it out, for a while and with a reason.
	d.says(d.slipway(exitUsage, "rollout", "pause", "sailing/web"), "--reason")
	d.says(d.slipway(exitUsage, "rollout", "abort", "sailing/web", "--reason", "x", "--for", "25h"), "at most 24h")
	d.says(d.slipway(exitDone, "rollout", "pause", "sailing/web", "--reason", "INC-1"), "sailing/web is paused until")
	d.says(d.slipway(exitDone, "rollout", "status", "sailing/web"), "paused", "INC-1")
	d.says(d.slipway(exitFailed, "rollout", "promote", "sailing/web"), "INC-1", "rollout retry")
	d.says(d.slipway(exitDone, "rollout", "retry", "sailing/web"), "goes on")
	d.says(d.slipway(exitFailed, "rollout", "retry", "sailing/web"), "nothing of it was paused")
	d.says(d.slipway(exitDone, "rollout", "abort", "sailing/web", "--reason", "INC-2"), "sailing/web is aborted until")
	d.eventually(func() error {
		var canary appsv1.Deployment
		err := d.Kube.Get(d.Context(), client.ObjectKey{Namespace: "sailing", Name: "web-canary"}, &canary)
		var now rolloutStatus
		d.read(exitDone, &now, "rollout", "status", "sailing/web")
		if !apierrors.IsNotFound(err) || now.Phase != v1alpha1.PhasePaused || now.Verdict.Reason != "Aborted" || now.Weight != 0 {
			return fmt.Errorf("canary: %v; status: %+v", err, now)
		}
		return nil
	})
	d.says(d.slipway(exitDone, "rollout", "retry", "sailing/web"), "goes on")
	d.eventually(func() error {
		status = rolloutStatus{}
		if d.read(exitDone, &status, "rollout", "status", "sailing/web"); status.Step != 2 || status.Weight != 50 {
			return fmt.Errorf("status: %+v", status)
		}
		return nil
	})
	d.says(d.slipway(exitDone, "rollout", "promote", "sailing/web"), "step 2 of Bundle "+status.Target)
	d.says(d.slipway(exitDone, "rollout", "status", "sailing/web", "--watch"), "sailing/web is Healthy", "step 3  100%  Weight", "Promoting", "Passed", "verdict Pass")
	d.must(d.WaitReady(d.Context(), atMost, commit, "sailing"))

	var deployment appsv1.Deployment
	d.get("sailing", "web", &deployment)
	if pod := deployment.Spec.Template.Spec.Containers[0]; len(pod.Env) != 1 || *deployment.Spec.Replicas != 2 {
		t.Errorf("in the end there are %d pods with %v", *deployment.Spec.Replicas, pod.Env)
	}
}
