package apply_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/slipway-cd/slipway/reconciler/apply"
)

func TestHealthOf(t *testing.T) {
	const rollout = "apiVersion: slipway.dev/v1alpha1\nkind: Rollout\nmetadata: {name: web, generation: 2}\n"
	for name, test := range map[string]struct {
		yaml string
		want apply.HealthState
		text string
	}{
		"configmap":           {"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", apply.Healthy, ""},
		"application":         {"{apiVersion: slipway.dev/v1alpha1, kind: Application, metadata: {name: a}, status: {conditions: [{type: Stalled, status: 'True'}]}}", apply.Healthy, ""},
		"deployment is new":   {"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, generation: 2}, spec: {replicas: 1}, status: {observedGeneration: 1, replicas: 1, readyReplicas: 1, availableReplicas: 1, updatedReplicas: 1}}", apply.Progressing, ""},
		"deployment is stuck": {"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, generation: 1}, spec: {replicas: 1}, status: {observedGeneration: 1, conditions: [{type: Progressing, status: 'False', reason: ProgressDeadlineExceeded}]}}", apply.Failed, "deadline"},
		"deployment serves": {
			"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, generation: 1}, spec: {replicas: 1}, status: {observedGeneration: 1, replicas: 1, readyReplicas: 1, availableReplicas: 1, updatedReplicas: 1, conditions: [{type: Available, status: 'True'}, {type: Progressing, status: 'True', reason: NewReplicaSetAvailable}]}}",
			apply.Healthy, "",
		},
		"job failed":              {"{apiVersion: batch/v1, kind: Job, metadata: {name: a}, status: {conditions: [{type: Failed, status: 'True', message: BackoffLimitExceeded}]}}", apply.Failed, "Job Failed"},
		"job runs":                {"{apiVersion: batch/v1, kind: Job, metadata: {name: a}, status: {active: 1, startTime: '2026-01-01T00:00:00Z'}}", apply.Progressing, "not ended"},
		"job completed":           {"{apiVersion: batch/v1, kind: Job, metadata: {name: a}, status: {succeeded: 1, conditions: [{type: SuccessCriteriaMet, status: 'True'}, {type: Complete, status: 'True'}]}}", apply.Healthy, "completed"},
		"job is suspended":        {"{apiVersion: batch/v1, kind: Job, metadata: {name: a}, spec: {suspend: true}}", apply.Healthy, "suspended"},
		"is being deleted":        {"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, deletionTimestamp: '2026-01-01T00:00:00Z'}}", apply.Progressing, "deleted"},
		"rollout without bundle":  {rollout, apply.Progressing, "no Bundle"},
		"rollout not looked at":   {rollout + "spec: {bundle: {name: b, digest: d2}}\nstatus: {observedGeneration: 1, stable: {digest: d2}}", apply.Progressing, "not looked at"},
		"rollout is stable":       {rollout + "spec: {bundle: {name: b, digest: d2}}\nstatus: {observedGeneration: 2, stable: {digest: d2}}", apply.Healthy, ""},
		"rollout failed":          {rollout + "spec: {bundle: {name: b, digest: d2}}\nstatus: {observedGeneration: 2, stable: {digest: d1}, verdict: {outcome: Fail, reason: Deadline, message: 0 of 3, bundle: d2}}", apply.Failed, "0 of 3"},
		"rollout failed before":   {rollout + "spec: {bundle: {name: b, digest: d2}}\nstatus: {observedGeneration: 2, stable: {digest: d1}, verdict: {outcome: Fail, bundle: d1}, phase: Progressing}", apply.Progressing, "Progressing"},
		"rollout is inconclusive": {rollout + "spec: {bundle: {name: b, digest: d2}}\nstatus: {observedGeneration: 2, verdict: {outcome: Inconclusive, reason: NoNodes, bundle: d2}}", apply.Progressing, "NoNodes"},
	} {
		t.Run(name, func(t *testing.T) {
			var o unstructured.Unstructured
			if err := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(test.yaml), 4096).Decode(&o); err != nil {
				t.Fatal(err)
			}
			if got := apply.HealthOf(&o); got.State != test.want || !strings.Contains(strings.ToLower(got.Message), strings.ToLower(test.text)) {
				t.Errorf("got %s (%q), want %s", got.State, got.Message, test.want)
			}
		})
	}
}
