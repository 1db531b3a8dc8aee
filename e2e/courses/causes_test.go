package courses

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// berth is a node that a test plays, with the pods on it, and pods of namespaces that it plays wherever they are.
type berth struct {
	sync.Mutex
	name  string
	ips   int             // given to pods so far
	fine  bool            // the node, and with it its pods
	pods  map[string]bool // by namespace: pods are well, or crash
	stuck error
}

// play keeps node and pods as they should be until the test ends.
func (b *berth) play(t *testing.T) {
	t.Helper()
	b.pods = map[string]bool{}
	nodes := shared.clients.CoreV1().Nodes()
	_, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: b.name, Labels: map[string]string{"berth": b.name}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.set(func() { b.fine = true })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(150 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			err := b.playPods(ctx)
			if n%8 == 0 {
				err = errors.Join(err, b.playNode(ctx))
			}
			b.set(func() { b.stuck = err })
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := nodes.Delete(context.WithoutCancel(t.Context()), b.name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the node was played until %v", b.stuck)
		}
	})
}

func (b *berth) set(f func()) {
	b.Lock()
	defer b.Unlock()
	f()
}

func (b *berth) playNode(ctx context.Context) error {
	b.Lock()
	fine := b.fine
	b.Unlock()
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: metav1.Now()}
	if !fine {
		ready.Status, ready.Reason = corev1.ConditionFalse, "KubeletNotReady"
	}
	room := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("500")}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []any{ready}, "capacity": room, "allocatable": room}})
	if err != nil {
		return err
	}
	_, err = shared.clients.CoreV1().Nodes().Patch(ctx, b.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// playPods lets pods be well or crash, those of stable first, and lets those go that are to.
func (b *berth) playPods(ctx context.Context) error {
	list, err := shared.clients.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	slices.SortStableFunc(list.Items, func(x, y corev1.Pod) int {
		return cmp.Compare(x.Labels[manifests.LabelCanary], y.Labels[manifests.LabelCanary])
	})
	var all []error
	for i := range list.Items {
		pod := &list.Items[i]
		b.Lock()
		well, played := b.pods[pod.Namespace]
		if pod.Spec.NodeName == b.name {
			well, played = b.fine, true
		}
		b.Unlock()
		switch {
		case !played || pod.Spec.NodeName == "":
		case pod.DeletionTimestamp != nil && pod.Spec.NodeName == b.name:
			all = append(all, shared.clients.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
		case pod.DeletionTimestamp == nil && len(pod.Status.ContainerStatuses) == 1 && pod.Status.ContainerStatuses[0].ImageID != "" && !b.is(pod, well):
			all = append(all, b.playPod(ctx, pod, well))
		}
	}
	return errors.Join(all...)
}

// is says that a pod is as it is to be.
func (b *berth) is(pod *corev1.Pod, well bool) bool {
	ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	crashed := pod.Status.ContainerStatuses[0].RestartCount > 0
	return ready == well && crashed == (!well && pod.Spec.NodeName != b.name)
}

// playPod writes what a kubelet would: that a pod runs, that it has crashed three times, or that its node has lost it.
func (b *berth) playPod(ctx context.Context, pod *corev1.Pod, well bool) error {
	container := pod.Status.ContainerStatuses[0]
	container.Ready, container.Started = well, &well
	status := corev1.ConditionFalse
	switch {
	case well:
		status = corev1.ConditionTrue
		container.RestartCount, container.State = 0, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
	case pod.Spec.NodeName != b.name:
		container.RestartCount, container.State = 3, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 40s"}}
		container.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error"}
	}
	next := pod.DeepCopy()
	next.Status.Phase, next.Status.ContainerStatuses = corev1.PodRunning, []corev1.ContainerStatus{container}
	if next.Status.PodIP == "" { // else no Service reaches it
		b.ips++
		next.Status.PodIP = fmt.Sprintf("10.90.%d.%d", b.ips/250, 1+b.ips%250)
		next.Status.PodIPs = []corev1.PodIP{{IP: next.Status.PodIP}}
	}
	for _, kind := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
		found := false
		for i := range next.Status.Conditions {
			if c := &next.Status.Conditions[i]; c.Type == kind {
				c.Status, c.LastTransitionTime, found = status, metav1.Now(), true
			}
		}
		if !found {
			next.Status.Conditions = append(next.Status.Conditions, corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: metav1.Now()})
		}
	}
	_, err := shared.clients.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return err
}

// limit lets a namespace have no more pods than that, until the result is called.
func (s story) limit(toPods string) (lift func()) {
	s.Helper()
	quotas := shared.clients.CoreV1().ResourceQuotas(s.name)
	_, err := quotas.Create(s.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "few"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse(toPods)}},
	}, metav1.CreateOptions{})
	s.must(err)
	s.eventually(func() error {
		quota, err := quotas.Get(s.Context(), "few", metav1.GetOptions{})
		if err == nil && len(quota.Status.Used) == 0 {
			err = fmt.Errorf("the quota of %s is not counted yet", s.name)
		}
		return err
	})
	return func() { s.must(quotas.Delete(s.Context(), "few", metav1.DeleteOptions{})) }
}

// What is in the way of a version, and not its fault, makes it wait with the traffic that it has. When that is gone it goes on.
func TestNotTheVersionsFault(t *testing.T) {
	on := func(label string) string {
		return "patches:\n  - target: {kind: Deployment}\n    patch: |-\n      - {op: add, path: /spec/template/spec/nodeSelector, value: {" + label + "}}\n"
	}
	onOuter, onInner := on("berth: outer"), on("kubernetes.io/hostname: fake-0")
	const waits = `{canary: {progressDeadline: $DEADLINE, steps: [{weight: 50}, {pause: {}}]}}`
	tell := func(name, strategy string, routed bool) story {
		return story{t, app{name: name, strategy: strategy, routed: routed, deadline: "6s"}}
	}
	quota := map[story]string{
		tell("few-rolling", rolling, false): "3", tell("few-routes", routes, true): "4", tell("few-pods", pods, false): "4", tell("few-blue", blueGreen, false): "4",
	}
	nodeRoutes, nodePods, nodeBlue := tell("node-routes", waits, true), tell("node-pods", waits, false), tell("node-blue", afterOnly, false)
	node := map[story]int{nodeRoutes: 2, nodePods: 2, nodeBlue: 3}
	alikeRolling, alikeRoutes := tell("alike-rolling", rolling, false), tell("alike-routes", waits, true)
	var apps []app
	for s := range quota {
		apps = append(apps, s.app)
	}
	for s := range node {
		apps = append(apps, s.app)
	}
	agent(t)
	begin(t, append(apps, alikeRolling.app, alikeRoutes.app)...)
	outer := &berth{name: "outer"}
	outer.play(t)
	image, unsteady, err := version("never-ready unless played")
	alikeRoutes.must(err)
	alikeRoutes.must(push(t.Context(), image, unsteady))
	outer.set(func() { outer.pods[alikeRoutes.name] = true })

	var lifts []func()
	changes := []gitsource.Change{alikeRoutes.use(unsteady, onInner)}
	for s, pods := range quota {
		lifts = append(lifts, s.limit(pods))
		changes = append(changes, s.use(shared.better, ""))
	}
	shared.dials.mute(nodeBlue.name, "after")
	for s := range node {
		changes = append(changes, s.use(shared.better, onOuter))
	}
	commit(t, "Promote where much is in the way", changes...)
	for s, step := range node {
		s.eventually(func() error { return s.at(step, v1alpha1.PhaseProgressing) })
	}
	alikeRoutes.eventually(func() error { return alikeRoutes.at(2, v1alpha1.PhaseProgressing) })
	outer.set(func() { outer.fine, outer.pods[alikeRoutes.name], outer.pods[alikeRolling.name] = false, false, false })
	commit(t, "Promote where all crash", alikeRolling.use(unsteady, onInner))

	for s := range quota {
		s.eventually(func() error { return s.says("PodsNotCreated") })
	}
	few := tell("few-routes", routes, true)
	few.keeps(0)
	for s := range node {
		s.eventually(func() error { return s.says("NodeNotReady") })
	}
	nodeRoutes.keeps(0) // none of its pods answers, and stable's do
	for _, s := range []story{alikeRolling, alikeRoutes} {
		s.eventually(func() error { return s.says("StableFailsAlike") })
	}
	alikeRoutes.keeps(50)

	outer.set(func() { outer.fine, outer.pods[alikeRoutes.name], outer.pods[alikeRolling.name] = true, true, true })
	for _, lift := range lifts {
		lift()
	}
	for s, step := range map[story]int{nodeRoutes: 2, nodePods: 2, alikeRoutes: 2} {
		s.eventually(func() error { return s.at(step, v1alpha1.PhaseProgressing) })
		if s.routed {
			s.eventually(func() error {
				weight, err := s.gives()
				if err == nil && weight != 50 {
					err = fmt.Errorf("%s gives the canary %d%%", s.name, weight)
				}
				return err
			})
		}
		s.must(s.approve())
		s.stays(map[bool]string{true: unsteady, false: shared.better}[s == alikeRoutes])
	}
	nodeBlue.eventually(func() error { return nodeBlue.at(3, v1alpha1.PhaseProgressing) })
	shared.dials.turn(nodeBlue.name, "after", 1)
	nodeBlue.stays(shared.better)
	alikeRolling.stays(unsteady)
	for s := range quota {
		s.stays(shared.better)
	}
}
