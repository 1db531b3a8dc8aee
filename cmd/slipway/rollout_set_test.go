package main

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/world"
)

const inOrder = `apiVersion: slipway.dev/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  workloadRef: {kind: StatefulSet, name: web}
  strategy:
    rolling:
      progressDeadline: 1m
      batches: [{percent: 50, pause: {}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {greeting: one}
`

// From a commit through the first batch and a person's yes to the end, with a StatefulSet: Git says what runs, although pods
// use copies of their configuration.
func TestRolloutOfAStatefulSet(t *testing.T) {
	d := newDeck(t)
	set := strings.NewReplacer("kind: Deployment", "kind: StatefulSet", "replicas: 2", "replicas: 2\n  serviceName: web",
		"{name: web, image", "{name: web, envFrom: [{configMapRef: {name: web}}], image").Replace(workload)
	d.application("berthing", "", map[string]string{"production/web.yaml": set, "production/rollout.yaml": inOrder})
	d.says(d.slipway(exitDone, "rollout", "status", "berthing/web"), "berthing/web is Healthy", "verdict Pass")
	d.says(d.slipway(exitDone, "diff", "berthing"), "berthing: no differences")
	d.says(d.slipway(exitDone, "explain", "statefulset/web", "-n", "berthing"), "berthing")
	d.says(d.slipway(exitDone, "tree", "berthing"), "StatefulSet", "web-0", "web-1")

	commit, err := d.Commit(d.Context(), "Change", world.Write("apps/berthing/production/rollout.yaml", strings.Replace(inOrder, "greeting: one", "greeting: two", 1)))
	d.must(err)
	greets := func(pod string) string {
		var one corev1.Pod
		var config corev1.ConfigMap
		if d.Kube.Get(d.Context(), client.ObjectKey{Namespace: "berthing", Name: pod}, &one) != nil || d.Kube.Get(d.Context(), client.ObjectKey{Namespace: "berthing", Name: one.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name}, &config) != nil {
			return "nobody"
		}
		return config.Data["greeting"]
	}
	d.eventually(func() error {
		var status rolloutStatus
		if d.read(exitDone, &status, "rollout", "status", "berthing/web"); status.Step != 2 || greets("web-0")+" "+greets("web-1") != "one two" {
			return fmt.Errorf("%s %s, status: %+v", greets("web-0"), greets("web-1"), status)
		}
		return nil
	})
	d.says(d.slipway(exitDone, "rollout", "promote", "berthing/web"), "step 2")
	d.must(d.WaitReady(d.Context(), atMost, commit, "berthing"))
	var live appsv1.StatefulSet
	d.get("berthing", "web", &live)
	if got := greets("web-0") + " " + greets("web-1"); got != "two two" || live.Status.UpdatedReplicas != 2 {
		t.Errorf("in the end pods greet %s; status %+v", got, live.Status)
	}
	d.says(d.slipway(exitDone, "diff", "berthing"), "berthing: no differences")
}
