package apply

import (
	"context"
	"fmt"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-cd/slipway/manifests"
)

// Bounds of a Tail.
const (
	tailLines = 20
	tailBytes = 64 << 10
)

// Tail returns the last lines that a pod of a Job wrote: of the newest pod with a container that failed, and of that
// container. It is empty when no such pod is left; pods that restart in place are removed together with their log when
// their Job fails. The lines may hold secrets.
func (a *Applier) Tail(ctx context.Context, job manifests.Ref, uid string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, a.options.Timeout)
	defer cancel()
	pods, err := a.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(job.Namespace).
		List(ctx, metav1.ListOptions{LabelSelector: "batch.kubernetes.io/controller-uid=" + uid})
	if err != nil {
		return "", fmt.Errorf("%s: its pods: %w", job, err)
	}
	var newest *unstructured.Unstructured
	container := ""
	for i := range pods.Items {
		pod := &pods.Items[i]
		failed := failedContainer(pod)
		if failed == "" || newest != nil && pod.GetCreationTimestamp().Time.Before(newest.GetCreationTimestamp().Time) {
			continue
		}
		newest, container = pod, failed
	}
	if newest == nil {
		return "", nil
	}
	result := a.rest.Get().AbsPath("/api/v1/namespaces", job.Namespace, "pods", newest.GetName(), "log").
		Param("container", container).Param("tailLines", strconv.Itoa(tailLines)).Param("limitBytes", strconv.Itoa(tailBytes)).
		Do(ctx)
	if err := result.Error(); err != nil {
		return "", fmt.Errorf("log of pod %s/%s: %w", job.Namespace, newest.GetName(), err)
	}
	text, err := result.Raw()
	return string(text), err
}

// failedContainer names the first container of a pod that ended with an error; empty if none did.
func failedContainer(pod *unstructured.Unstructured) string {
	for _, list := range []string{"initContainerStatuses", "containerStatuses"} {
		statuses, _, _ := unstructured.NestedSlice(pod.Object, "status", list)
		for _, item := range statuses {
			status, _ := item.(map[string]any)
			for _, state := range []string{"state", "lastState"} {
				code, found, _ := unstructured.NestedInt64(status, state, "terminated", "exitCode")
				if name, _ := status["name"].(string); found && code != 0 {
					return name
				}
			}
		}
	}
	return ""
}
