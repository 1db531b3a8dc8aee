package apply

import (
	"fmt"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// HealthState of an object.
type HealthState uint8

// The states. Only Failed is definite; Progressing may last for ever.
const (
	HealthUnknown HealthState = iota
	Progressing
	Healthy
	Failed
)

// String returns the state in lower case.
func (s HealthState) String() string {
	switch s {
	case Progressing:
		return "progressing"
	case Healthy:
		return "healthy"
	case Failed:
		return "failed"
	default:
		return "unknown"
	}
}

// Health of an object, with a message for people.
type Health struct {
	State   HealthState
	Message string
	// Early says that this tells of what was before: the watch, or the controller of the object, has not seen yet what was
	// applied last. That is a matter of milliseconds.
	Early bool
}

// judged says whether the health of a kind depends on more than being there.
// Its watch then carries whole objects. Custom resources are judged: their
// controllers tell by conditions how they are. Services and PodDisruptionBudgets
// are not: all that kstatus waits for with them is what the API server or a
// controller fills in at once.
func judged(kind schema.GroupKind) bool {
	switch kind.Group {
	case "apps":
		return kind.Kind == "Deployment" || kind.Kind == "StatefulSet" || kind.Kind == "DaemonSet" || kind.Kind == "ReplicaSet"
	case "batch":
		return kind.Kind == "Job"
	case "":
		return kind.Kind == "PersistentVolumeClaim" || kind.Kind == "Pod"
	case "apiextensions.k8s.io":
		return kind.Kind == "CustomResourceDefinition"
	case "apiregistration.k8s.io":
		return kind.Kind == "APIService"
	case v1alpha1.Group:
		return kind.Kind == "Rollout"
	}
	return isCustom(kind)
}

// isCustom tells the kinds that others define by their group: the groups of Kubernetes have no dot or end in .k8s.io.
func isCustom(kind schema.GroupKind) bool {
	return kind.Group != v1alpha1.Group && strings.Contains(kind.Group, ".") && !strings.HasSuffix(kind.Group, ".k8s.io")
}

// HealthOf judges a whole object: Rollouts by the verdict on their Bundle, Jobs and Pods by how they ended, all
// others by the conventions of kstatus. Objects of kinds that are not judged are Healthy, as are custom resources
// whose status does not follow those conventions: it says nothing by them.
func HealthOf(object *unstructured.Unstructured) Health {
	ref := manifests.RefOf(object)
	switch {
	case !judged(ref.GroupKind()):
		return Health{State: Healthy}
	case object.GetDeletionTimestamp() != nil:
		return Health{State: Progressing, Message: "is being deleted"}
	case ref.Group == v1alpha1.Group:
		return rolloutHealth(object)
	case ref.Group == "batch":
		return jobHealth(object)
	case ref.Group == "":
		if health, known := podHealth(object); known {
			return health
		}
	}
	result, err := status.Compute(object)
	if err != nil && isCustom(ref.GroupKind()) {
		return Health{State: Healthy, Message: "its status follows no convention"}
	}
	if err != nil {
		return Health{Message: err.Error()}
	}
	switch result.Status {
	case status.CurrentStatus:
		return Health{State: Healthy, Message: result.Message}
	case status.FailedStatus:
		return Health{State: Failed, Message: result.Message}
	case status.InProgressStatus, status.TerminatingStatus, status.NotFoundStatus:
		return Health{State: Progressing, Message: result.Message, Early: ref.Group == "apps" && unobserved(object)}
	default:
		return Health{Message: result.Message}
	}
}

// rolloutHealth reads the verdict on the Bundle that the Rollout points at.
func rolloutHealth(object *unstructured.Unstructured) Health {
	var rollout v1alpha1.Rollout
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &rollout); err != nil {
		return Health{Message: err.Error()}
	}
	bundle, verdict, stable := rollout.Spec.Bundle, rollout.Status.Verdict, rollout.Status.Stable
	switch {
	case bundle == nil:
		return Health{State: Progressing, Message: "has no Bundle yet"}
	case verdict != nil && verdict.Bundle == bundle.Digest && verdict.Outcome == v1alpha1.VerdictFail:
		return Health{State: Failed, Message: fmt.Sprintf("%s: %s", verdict.Reason, verdict.Message)}
	case rollout.Status.ObservedGeneration != rollout.Generation:
		return Health{State: Progressing, Message: "not looked at by the rollout loop yet"}
	case stable != nil && stable.Digest == bundle.Digest:
		return Health{State: Healthy, Message: "the Bundle is stable"}
	case verdict != nil && verdict.Bundle == bundle.Digest && verdict.Outcome == v1alpha1.VerdictInconclusive:
		return Health{State: Progressing, Message: fmt.Sprintf("inconclusive: %s: %s", verdict.Reason, verdict.Message)}
	default:
		return Health{State: Progressing, Message: fmt.Sprintf("phase %s", rollout.Status.Phase)}
	}
}

// jobHealth waits for the end of a Job, where kstatus is content with its start: who puts a Job into Git wants it done.
func jobHealth(object *unstructured.Unstructured) Health {
	if suspended, _, _ := unstructured.NestedBool(object.Object, "spec", "suspend"); suspended {
		return Health{State: Healthy, Message: "is suspended"}
	}
	switch condition := jobEnd(object); condition["type"] {
	case "Complete":
		return Health{State: Healthy, Message: "completed"}
	case "Failed":
		return Health{State: Failed, Message: fmt.Sprintf("Job failed: %v: %v", condition["reason"], condition["message"])}
	}
	return Health{State: Progressing, Message: "has not ended"}
}

// podHealth knows what kstatus takes in another way: a Pod that ended badly by itself has failed, and one that finds or
// keeps no node waits, since that is not the doing of its version.
func podHealth(object *unstructured.Unstructured) (health Health, known bool) {
	if object.GetKind() != "Pod" {
		return Health{}, false
	}
	phase, _, _ := unstructured.NestedString(object.Object, "status", "phase")
	switch phase {
	case "Failed":
		// A reason other than its own deadline is its node's: eviction, preemption, shutdown, refusal.
		reason, _, _ := unstructured.NestedString(object.Object, "status", "reason")
		if reason != "" && reason != "DeadlineExceeded" {
			return Health{State: Progressing, Message: "Pod was ended by its node: " + reason}, true
		}
		return Health{State: Failed, Message: strings.TrimSuffix("Pod failed: "+reason, ": ")}, true
	case "Pending":
		if scheduled := condition(object, "PodScheduled"); scheduled["status"] == "False" {
			return Health{State: Progressing, Message: fmt.Sprintf("Pod has no node: %v", scheduled["message"])}, true
		}
	}
	return Health{}, false
}

// unobserved reports whether the controller of a workload has not seen its newest spec.
func unobserved(object *unstructured.Unstructured) bool {
	seen, _, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	return seen < object.GetGeneration()
}

func condition(object *unstructured.Unstructured, kind string) map[string]any {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, item := range conditions {
		if condition, _ := item.(map[string]any); condition["type"] == kind {
			return condition
		}
	}
	return nil
}

// jobEnd is the condition that says how a Job ended; nil while it has not.
func jobEnd(job *unstructured.Unstructured) map[string]any {
	conditions, _, _ := unstructured.NestedSlice(job.Object, "status", "conditions")
	for _, item := range conditions {
		condition, _ := item.(map[string]any)
		if condition["status"] == "True" && (condition["type"] == "Complete" || condition["type"] == "Failed") {
			return condition
		}
	}
	return nil
}
