package rollout

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/rollout/analysis"
)

func TestPodOf(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	running := func(ago time.Duration) corev1.ContainerState {
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: now.Add(-ago)}}}
	}
	waiting := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	ended := func(code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error"}}
	}
	for name, test := range map[string]struct {
		node   string
		status corev1.PodStatus
		want   analysis.Pod
	}{
		"ready": {
			"n",
			corev1.PodStatus{
				Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
				ContainerStatuses: []corev1.ContainerStatus{{State: running(time.Minute)}},
			},
			analysis.Pod{Scheduled: true, Ready: true, Running: time.Minute},
		},
		"without a node": {
			"",
			corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "no cpu"}}},
			analysis.Pod{Reason: "Unschedulable", Message: "no cpu"},
		},
		"without its image": {
			"n",
			corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: waiting("ImagePullBackOff", "not found")}}},
			analysis.Pod{Scheduled: true, Reason: "ImagePullBackOff", Message: "not found"},
		},
		"being created": {
			"n",
			corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: waiting("ContainerCreating", "")}}},
			analysis.Pod{Scheduled: true},
		},
		"crashing": {
			"n",
			corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
				Name: "web", RestartCount: 4, State: waiting("CrashLoopBackOff", "back-off"), LastTerminationState: ended(2),
			}}},
			analysis.Pod{Scheduled: true, Reason: "CrashLoopBackOff", Message: "container web ended with exit code 2 (Error)", Restarts: 4},
		},
		"running again": {
			"n",
			corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
				Name: "web", RestartCount: 3, State: running(time.Second), LastTerminationState: ended(137),
			}}},
			analysis.Pod{Scheduled: true, Running: time.Second, Restarts: 3, Message: "container web ended with exit code 137 (Error)"},
		},
		"between two crashes": {
			"n",
			corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "web", RestartCount: 1, State: ended(1)}}},
			analysis.Pod{Scheduled: true, Exited: true, Reason: "Error", Message: "container web ended with exit code 1 (Error)", Restarts: 1},
		},
		"its init container crashes": {
			"n",
			corev1.PodStatus{
				InitContainerStatuses: []corev1.ContainerStatus{{Name: "migrate", RestartCount: 3, State: waiting("CrashLoopBackOff", ""), LastTerminationState: ended(1)}},
				ContainerStatuses:     []corev1.ContainerStatus{{State: waiting("PodInitializing", "")}},
			},
			analysis.Pod{Scheduled: true, Reason: "CrashLoopBackOff", Message: "container migrate ended with exit code 1 (Error)", Restarts: 3},
		},
		"evicted": {
			"n",
			corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on memory"},
			analysis.Pod{Scheduled: true, Reason: "Evicted", Message: "low on memory"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: test.node, Containers: []corev1.Container{{}}}, Status: test.status}
			if got := podOf(pod, now); got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}
