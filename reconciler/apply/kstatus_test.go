package apply_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/reconciler/apply"
)

// TestKstatus goes through the kinds and conditions of kstatus. theirs marks the rows where what we say is on purpose not
// what kstatus says: its answer and the reason for ours.
func TestKstatus(t *testing.T) {
	const (
		healthy     = apply.Healthy
		progressing = apply.Progressing
		failed      = apply.Failed
	)
	rows := []struct {
		kind, name string
		rest       string // spec and status; the generation is 2 where the kind has one
		want       apply.HealthState
		text       string // in the message
		theirs     string
	}{
		{"apps/v1 Deployment", "never seen", "{status: {}}", progressing, "0/1", ""},
		{"apps/v1 Deployment", "old generation", "{status: {observedGeneration: 1, replicas: 1, updatedReplicas: 1, readyReplicas: 1, availableReplicas: 1, conditions: [{type: Available, status: 'True'}]}}", progressing, "observed generation is 1", ""},
		{"apps/v1 Deployment", "too few replicas", "{spec: {replicas: 3}, status: {observedGeneration: 2, replicas: 1, updatedReplicas: 1}}", progressing, "Replicas: 1/3", ""},
		{"apps/v1 Deployment", "too few updated", "{spec: {replicas: 3}, status: {observedGeneration: 2, replicas: 3, updatedReplicas: 1}}", progressing, "Updated: 1/3", ""},
		{"apps/v1 Deployment", "old pods left", "{spec: {replicas: 2}, status: {observedGeneration: 2, replicas: 3, updatedReplicas: 2, readyReplicas: 2, availableReplicas: 2}}", progressing, "Pending termination: 1", ""},
		{"apps/v1 Deployment", "too few available", "{spec: {replicas: 2}, status: {observedGeneration: 2, replicas: 2, updatedReplicas: 2, readyReplicas: 2, availableReplicas: 1}}", progressing, "Available: 1/2", ""},
		{"apps/v1 Deployment", "too few ready", "{spec: {replicas: 2}, status: {observedGeneration: 2, replicas: 2, updatedReplicas: 2, readyReplicas: 1, availableReplicas: 2}}", progressing, "Ready: 1/2", ""},
		{"apps/v1 Deployment", "not available", "{spec: {replicas: 1, progressDeadlineSeconds: 10}, status: {observedGeneration: 2, replicas: 1, updatedReplicas: 1, readyReplicas: 1, availableReplicas: 1, conditions: [{type: Progressing, status: 'True', reason: NewReplicaSetAvailable}, {type: Available, status: 'False'}]}}", progressing, "not Available", ""},
		{"apps/v1 Deployment", "available", "{spec: {replicas: 1}, status: {observedGeneration: 2, replicas: 1, updatedReplicas: 1, readyReplicas: 1, availableReplicas: 1, conditions: [{type: Progressing, status: 'True', reason: NewReplicaSetAvailable}, {type: Available, status: 'True'}]}}", healthy, "", ""},
		{"apps/v1 Deployment", "scaled to nothing", "{spec: {replicas: 0}, status: {observedGeneration: 2, conditions: [{type: Available, status: 'True'}]}}", healthy, "", ""},
		{"apps/v1 Deployment", "deadline exceeded", "{spec: {replicas: 1}, status: {observedGeneration: 2, conditions: [{type: Progressing, status: 'False', reason: ProgressDeadlineExceeded}]}}", failed, "deadline", ""},
		{"apps/v1 Deployment", "deadline of the generation before", "{spec: {replicas: 1}, status: {observedGeneration: 1, conditions: [{type: Progressing, status: 'False', reason: ProgressDeadlineExceeded}]}}", progressing, "generation", ""},
		{"apps/v1 Deployment", "deleted", "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}, status: {observedGeneration: 2}}", progressing, "deleted", ""},

		{"apps/v1 StatefulSet", "too few replicas", "{spec: {replicas: 2}, status: {observedGeneration: 2, replicas: 1}}", progressing, "Replicas: 1/2", ""},
		{"apps/v1 StatefulSet", "too few ready", "{spec: {replicas: 2}, status: {observedGeneration: 2, replicas: 2, readyReplicas: 1}}", progressing, "Ready: 1/2", ""},
		{"apps/v1 StatefulSet", "scaled down", "{spec: {replicas: 1}, status: {observedGeneration: 2, replicas: 2, readyReplicas: 2}}", progressing, "termination", ""},
		{"apps/v1 StatefulSet", "between revisions", "{spec: {replicas: 1}, status: {observedGeneration: 2, replicas: 1, readyReplicas: 1, currentReplicas: 1, currentRevision: a, updateRevision: b}}", progressing, "revision", ""},
		{"apps/v1 StatefulSet", "partition not reached", "{spec: {replicas: 3, updateStrategy: {rollingUpdate: {partition: 1}}}, status: {observedGeneration: 2, replicas: 3, readyReplicas: 3, updatedReplicas: 1}}", progressing, "updated: 1/2", ""},
		{"apps/v1 StatefulSet", "partition reached", "{spec: {replicas: 3, updateStrategy: {rollingUpdate: {partition: 1}}}, status: {observedGeneration: 2, replicas: 3, readyReplicas: 3, updatedReplicas: 2}}", healthy, "", ""},
		{"apps/v1 StatefulSet", "updated on delete", "{spec: {replicas: 3, updateStrategy: {type: OnDelete}}, status: {observedGeneration: 2}}", healthy, "", ""},
		{"apps/v1 StatefulSet", "current", "{spec: {replicas: 1}, status: {observedGeneration: 2, replicas: 1, readyReplicas: 1, currentReplicas: 1, currentRevision: b, updateRevision: b}}", healthy, "", ""},

		{"apps/v1 DaemonSet", "never seen", "{status: {desiredNumberScheduled: 0}}", progressing, "observedGeneration", ""},
		{"apps/v1 DaemonSet", "too few scheduled", "{status: {observedGeneration: 2, desiredNumberScheduled: 2, currentNumberScheduled: 1}}", progressing, "Current: 1/2", ""},
		{"apps/v1 DaemonSet", "too few updated", "{status: {observedGeneration: 2, desiredNumberScheduled: 2, currentNumberScheduled: 2, updatedNumberScheduled: 1}}", progressing, "Updated: 1/2", ""},
		{"apps/v1 DaemonSet", "too few available", "{status: {observedGeneration: 2, desiredNumberScheduled: 2, currentNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 1}}", progressing, "Available: 1/2", ""},
		{"apps/v1 DaemonSet", "too few ready", "{status: {observedGeneration: 2, desiredNumberScheduled: 2, currentNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 2, numberReady: 1}}", progressing, "Ready: 1/2", ""},
		{"apps/v1 DaemonSet", "on no node", "{status: {observedGeneration: 2, desiredNumberScheduled: 0}}", healthy, "", ""},
		{"apps/v1 DaemonSet", "current", "{status: {observedGeneration: 2, desiredNumberScheduled: 1, currentNumberScheduled: 1, updatedNumberScheduled: 1, numberAvailable: 1, numberReady: 1}}", healthy, "", ""},

		{"apps/v1 ReplicaSet", "too few labelled", "{spec: {replicas: 2}, status: {observedGeneration: 2, replicas: 2, fullyLabeledReplicas: 1}}", progressing, "Labelled: 1/2", ""},
		{"apps/v1 ReplicaSet", "too few available", "{spec: {replicas: 2}, status: {observedGeneration: 2, replicas: 2, fullyLabeledReplicas: 2, availableReplicas: 1}}", progressing, "Available: 1/2", ""},
		{"apps/v1 ReplicaSet", "current", "{spec: {replicas: 1}, status: {observedGeneration: 2, replicas: 1, fullyLabeledReplicas: 1, availableReplicas: 1, readyReplicas: 1}}", healthy, "", ""},
		{"apps/v1 ReplicaSet", "cannot make pods", "{spec: {replicas: 0}, status: {observedGeneration: 2, conditions: [{type: ReplicaFailure, status: 'True'}]}}", progressing, "Replica Failure", ""},

		{"batch/v1 Job", "not started", "{}", progressing, "not ended", ""},
		{"batch/v1 Job", "runs", "{status: {startTime: '2026-01-01T00:00:00Z', active: 1}}", progressing, "not ended", "Current: who puts a Job into Git wants it done"},
		{"batch/v1 Job", "complete", "{status: {startTime: '2026-01-01T00:00:00Z', succeeded: 1, conditions: [{type: Complete, status: 'True'}]}}", healthy, "completed", ""},
		{"batch/v1 Job", "failed", "{status: {failed: 1, conditions: [{type: Failed, status: 'True', reason: BackoffLimitExceeded}]}}", failed, "BackoffLimitExceeded", ""},
		{"batch/v1 Job", "about to fail", "{status: {startTime: '2026-01-01T00:00:00Z', conditions: [{type: FailureTarget, status: 'True'}]}}", progressing, "not ended", "Current, as long as it runs"},
		{"batch/v1 Job", "suspended", "{spec: {suspend: true}}", healthy, "suspended", "InProgress: it would never end"},
		{"batch/v1 CronJob", "has jobs", "{status: {active: [{name: a}]}}", healthy, "", ""},

		{"v1 Pod", "not seen", "{}", progressing, "not available", ""},
		{"v1 Pod", "pending", "{status: {phase: Pending}}", progressing, "Pending", ""},
		{"v1 Pod", "without a node", "{metadata: {creationTimestamp: '2026-01-01T00:00:00Z'}, status: {phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, message: 0/1 nodes}]}}", progressing, "0/1 nodes", "Failed after 15s: missing nodes are not the version's fault"},
		{"v1 Pod", "runs", "{status: {phase: Running, conditions: [{type: Ready, status: 'False'}]}}", progressing, "not Ready", ""},
		{"v1 Pod", "crashes again and again", "{status: {phase: Running, containerStatuses: [{name: a, state: {waiting: {reason: CrashLoopBackOff}}}]}}", failed, "CrashLoop", ""},
		{"v1 Pod", "ready", "{status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}}", healthy, "", ""},
		{"v1 Pod", "succeeded", "{status: {phase: Succeeded}}", healthy, "", ""},
		{"v1 Pod", "failed", "{status: {phase: Failed}}", failed, "Pod failed", "Current: it has ended"},
		{"v1 Pod", "took too long", "{status: {phase: Failed, reason: DeadlineExceeded}}", failed, "DeadlineExceeded", "Current: it has ended"},
		{"v1 Pod", "evicted", "{status: {phase: Failed, reason: Evicted}}", progressing, "Evicted", "Current: it has ended"},

		{"v1 PersistentVolumeClaim", "not seen", "{}", progressing, "not Bound", ""},
		{"v1 PersistentVolumeClaim", "pending", "{status: {phase: Pending}}", progressing, "Pending", ""},
		{"v1 PersistentVolumeClaim", "lost", "{status: {phase: Lost}}", progressing, "Lost", ""},
		{"v1 PersistentVolumeClaim", "bound", "{status: {phase: Bound}}", healthy, "", ""},

		{"policy/v1 PodDisruptionBudget", "seen", "{status: {observedGeneration: 2, desiredHealthy: 2, currentHealthy: 1}}", healthy, "", ""},
		{"policy/v1 PodDisruptionBudget", "not seen", "{status: {observedGeneration: 1}}", healthy, "", "InProgress, for a moment: it is not watched whole for that"},
		{"v1 Service", "of the cluster", "{spec: {type: ClusterIP}}", healthy, "", ""},
		{"v1 Service", "load balancer", "{spec: {type: LoadBalancer, clusterIP: 10.0.0.1}}", healthy, "", ""},
		{"v1 Service", "load balancer without an address", "{spec: {type: LoadBalancer}}", healthy, "", "InProgress: the API server gives the address with the first answer"},
		{"v1 ConfigMap", "is there", "{data: {a: b}}", healthy, "", ""},
		{"v1 Secret", "is there", "{}", healthy, "", ""},
		{"networking.k8s.io/v1 Ingress", "is there", "{}", healthy, "", ""},

		{"apiextensions.k8s.io/v1 CustomResourceDefinition", "not seen", "{}", progressing, "in progress", ""},
		{"apiextensions.k8s.io/v1 CustomResourceDefinition", "installing", "{status: {conditions: [{type: Established, status: 'False', reason: Installing}]}}", progressing, "in progress", ""},
		{"apiextensions.k8s.io/v1 CustomResourceDefinition", "names taken", "{status: {conditions: [{type: NamesAccepted, status: 'False', reason: ListKindConflict, message: in use}]}}", failed, "in use", ""},
		{"apiextensions.k8s.io/v1 CustomResourceDefinition", "not established", "{status: {conditions: [{type: Established, status: 'False', reason: Other, message: broken}]}}", failed, "broken", ""},
		{"apiextensions.k8s.io/v1 CustomResourceDefinition", "established", "{status: {conditions: [{type: NamesAccepted, status: 'True'}, {type: Established, status: 'True'}]}}", healthy, "", ""},

		{"example.org/v1 Planet", "without a status", "{spec: {a: b}}", healthy, "", ""},
		{"example.org/v1 Planet", "old generation", "{status: {observedGeneration: 1, conditions: [{type: Ready, status: 'True'}]}}", progressing, "observed generation is 1", ""},
		{"example.org/v1 Planet", "ready", "{status: {observedGeneration: 2, conditions: [{type: Ready, status: 'True'}]}}", healthy, "", ""},
		{"example.org/v1 Planet", "not ready", "{status: {conditions: [{type: Ready, status: 'False', message: no water}]}}", progressing, "no water", ""},
		{"example.org/v1 Planet", "perhaps ready", "{status: {conditions: [{type: Ready, status: Unknown, message: cloudy}]}}", progressing, "cloudy", ""},
		{"example.org/v1 Planet", "reconciling", "{status: {conditions: [{type: Ready, status: 'True'}, {type: Reconciling, status: 'True', message: turning}]}}", progressing, "turning", ""},
		{"example.org/v1 Planet", "stalled", "{status: {conditions: [{type: Ready, status: 'False'}, {type: Stalled, status: 'True', message: no sun}]}}", failed, "no sun", ""},
		{"example.org/v1 Planet", "no longer stalled", "{status: {conditions: [{type: Ready, status: 'True'}, {type: Stalled, status: 'False'}]}}", healthy, "", ""},
		{"example.org/v1 Planet", "deleted", "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}, status: {conditions: [{type: Ready, status: 'True'}]}}", progressing, "deleted", ""},
		{"example.org/v1 Planet", "other conditions", "{status: {conditions: [{type: Habitable, status: 'False'}]}}", healthy, "", ""},
		{"argoproj.io/v1alpha1 Rollout", "a generation in words", "{status: {observedGeneration: '2'}}", healthy, "convention", "an error"},
		{"example.org/v1 Planet", "conditions by name", "{status: {conditions: {Ready: 'False'}}}", healthy, "convention", "an error"},
		{"slipway.dev/v1alpha1 Application", "stalled", "{status: {conditions: [{type: Stalled, status: 'True'}]}}", healthy, "", "Failed: an Application is judged by itself, and its failure must not take back the one that holds it"},
	}
	different := 0
	for _, row := range rows {
		if row.theirs != "" {
			different++
		}
		t.Run(row.kind+" "+row.name, func(t *testing.T) {
			version, kind, _ := strings.Cut(row.kind, " ")
			content := map[string]any{}
			if err := yaml.Unmarshal([]byte(row.rest), &content); err != nil {
				t.Fatal(err)
			}
			metadata, _ := content["metadata"].(map[string]any)
			if metadata == nil {
				metadata = map[string]any{}
			}
			metadata["name"], metadata["generation"] = "a", 2
			content["apiVersion"], content["kind"], content["metadata"] = version, kind, metadata
			raw, err := yaml.Marshal(content)
			if err != nil {
				t.Fatal(err)
			}
			if raw, err = yaml.YAMLToJSON(raw); err != nil {
				t.Fatal(err)
			}
			object := &unstructured.Unstructured{}
			if err := object.UnmarshalJSON(raw); err != nil {
				t.Fatal(err)
			}
			theirs := apply.HealthUnknown
			if result, err := status.Compute(object); err == nil {
				theirs = map[status.Status]apply.HealthState{
					status.CurrentStatus: healthy, status.FailedStatus: failed, status.InProgressStatus: progressing, status.TerminatingStatus: progressing,
				}[result.Status]
			}
			if (theirs != row.want) != (row.theirs != "") {
				t.Errorf("kstatus says %s, the row says %s and gives the reason %q", theirs, row.want, row.theirs)
			}
			got := apply.HealthOf(object)
			if got.State != row.want || !strings.Contains(strings.ToLower(got.Message), strings.ToLower(row.text)) {
				t.Errorf("got %s (%q), want %s with %q", got.State, got.Message, row.want, row.text)
			}
		})
	}
	t.Logf("%d rows, %d of them on purpose not as kstatus has it", len(rows), different)
}

// TestHealthOfCustomResources follows the conditions of a resource that nobody told us about.
func TestHealthOfCustomResources(t *testing.T) {
	w := newWorld(t)
	w.apply(w.set(fmt.Sprintf(widgetCRD, "widget", "Widget") + "{apiVersion: $NS.example.com/v1, kind: Widget, metadata: {name: a, namespace: $NS}}"))
	w.synced()
	ref := w.ref(w.namespace+".example.com", "Widget", "a")
	w.eventually("without conditions it is healthy", func() bool { return w.watcher.Health(ref).State == apply.Healthy })
	for condition, want := range map[string]apply.Health{
		`{"type":"Ready","status":"False","message":"no water"}`: {State: apply.Progressing, Message: "no water"},
		`{"type":"Stalled","status":"True","message":"no sun"}`:  {State: apply.Failed, Message: "no sun"},
		`{"type":"Ready","status":"True"}`:                       {State: apply.Healthy, Message: "Resource is Ready"},
	} {
		w.quiet()
		w.must(shared.Kubectl(w.ctx, "patch", "widgets."+ref.Group, "a", "-n", w.namespace, "--type=merge", "-p", `{"status":{"conditions":[`+condition+`]}}`))
		w.eventually("it is judged by "+condition, func() bool { return w.watcher.Health(ref) == want })
	}
}
