package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
)

// BehaviourLabel is the label in an image's configuration that says how a simulated pod of it behaves: "ready" (also
// when absent), "never-ready" or "crash"; with "@NAMESPACE" behind it, in that namespace only, as of a program that
// misses something there. A real node takes no notice of it: there the program decides.
const BehaviourLabel = "slipway.testbed/behaviour"

const (
	behaveReady      = "ready"
	behaveNeverReady = "never-ready"
	behaveCrash      = "crash"
)

// puller plays the part of a simulated node that knows images: it looks each image of a scheduled pod up in the
// registry and writes what a kubelet would report. Pods whose images all behave are left to kwok after that.
type puller struct {
	client   kubernetes.Interface
	registry *Registry

	mu    sync.Mutex
	known map[string]pulled // by image reference
}

type pulled struct {
	id        string // REPOSITORY@DIGEST
	behaviour string // that of BehaviourLabel
}

// in is how the image behaves in a namespace.
func (p pulled) in(namespace string) string {
	behaviour, only, found := strings.Cut(p.behaviour, "@")
	if found && only != namespace {
		return behaveReady
	}
	return behaviour
}

// startPuller watches pods until the cluster stops.
func (c *Cluster) startPuller() {
	p := &puller{client: c.client, registry: c.registry, known: map[string]pulled{}}
	ctx, cancel := context.WithCancel(context.Background())
	source := toolscache.NewListWatchFromClient(c.client.CoreV1().RESTClient(), "pods", metav1.NamespaceAll, fields.OneTermNotEqualSelector("spec.nodeName", ""))
	_, informer := toolscache.NewInformerWithOptions(toolscache.InformerOptions{
		ListerWatcher: source,
		ObjectType:    &corev1.Pod{},
		ResyncPeriod:  2 * time.Second, // a failed pull is tried again
		Handler: toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { p.handle(ctx, o) },
			UpdateFunc: func(_, o any) { p.handle(ctx, o) },
		},
	})
	var running sync.WaitGroup
	running.Go(func() { informer.RunWithContext(ctx) })
	c.onStop(func() error {
		cancel()
		running.Wait()
		return nil
	})
}

func (p *puller) handle(ctx context.Context, o any) {
	pod, ok := o.(*corev1.Pod)
	if !ok || pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodPending || haveImages(pod) {
		return
	}
	status := p.status(ctx, pod)
	known := map[string]any{"uid": pod.UID, "resourceVersion": pod.ResourceVersion} // what kwok makes of it later stands
	patch, err := json.Marshal(map[string]any{"metadata": known, "status": status})
	if err != nil {
		return // cannot happen: these are plain structs
	}
	// An error means that the pod is another by now, or gone, or that the API server is down; the next event or resync decides again.
	_, _ = p.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
}

func haveImages(pod *corev1.Pod) bool {
	if len(pod.Status.ContainerStatuses) == 0 {
		return false
	}
	for _, s := range pod.Status.ContainerStatuses {
		if s.ImageID == "" {
			return false
		}
	}
	return true
}

// status is the part of a pod's status that depends on its images.
func (p *puller) status(ctx context.Context, pod *corev1.Pod) corev1.PodStatus {
	now := metav1.Now()
	var st corev1.PodStatus
	missing, unready := false, false
	found := make([]pulled, len(pod.Spec.Containers))
	failed := make([]error, len(pod.Spec.Containers))
	for i, container := range pod.Spec.Containers {
		found[i], failed[i] = p.pull(ctx, container.Image)
		found[i].behaviour = found[i].in(pod.Namespace)
		missing = missing || failed[i] != nil
		unready = unready || found[i].behaviour == behaveNeverReady || found[i].behaviour == behaveCrash
	}
	for i, container := range pod.Spec.Containers {
		cs := corev1.ContainerStatus{Name: container.Name, Image: container.Image}
		switch {
		case failed[i] != nil:
			cs.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: fmt.Sprintf("Back-off pulling image %q: %v", container.Image, failed[i])}
		case missing || !unready:
			cs.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
			if !missing {
				cs.ImageID = found[i].id // all there: kwok goes on from here
			}
		case found[i].behaviour == behaveCrash:
			cs.ImageID, cs.RestartCount = found[i].id, 3
			cs.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: fmt.Sprintf("back-off 40s restarting failed container=%s pod=%s_%s", container.Name, pod.Name, pod.Namespace)}
			cs.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", StartedAt: now, FinishedAt: now}
		default:
			cs.ImageID, cs.Started = found[i].id, new(true)
			cs.Ready = found[i].behaviour == behaveReady
			cs.State.Running = &corev1.ContainerStateRunning{StartedAt: now}
		}
		st.ContainerStatuses = append(st.ContainerStatuses, cs)
	}
	if missing || !unready {
		return st
	}
	st.Phase, st.StartTime = corev1.PodRunning, &now
	st.Conditions = []corev1.PodCondition{
		{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: now},
		{Type: corev1.ContainersReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady", LastTransitionTime: now},
		{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady", LastTransitionTime: now},
	}
	return st
}

// pull looks image up in the registry. Images of other registries are taken for well-behaved, since nothing is known
// of them. What was found by digest stays known; a tag is asked for again.
func (p *puller) pull(ctx context.Context, image string) (pulled, error) {
	if !strings.HasPrefix(image, p.registry.Host()+"/") {
		return pulled{id: image, behaviour: behaveReady}, nil
	}
	p.mu.Lock()
	k, ok := p.known[image]
	p.mu.Unlock()
	if ok {
		return k, nil
	}
	k, err := lookUp(ctx, image)
	if err != nil {
		return pulled{}, err
	}
	if !strings.Contains(image, "@") {
		return k, nil
	}
	p.mu.Lock()
	p.known[image] = k
	p.mu.Unlock()
	return k, nil
}

func lookUp(ctx context.Context, image string) (pulled, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return pulled{}, fmt.Errorf("image %s: %w", image, err)
	}
	img, err := remote.Image(ref, remote.WithContext(ctx))
	if err != nil {
		return pulled{}, fmt.Errorf("image %s: %w", image, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return pulled{}, fmt.Errorf("image %s: %w", image, err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return pulled{}, fmt.Errorf("image %s: %w", image, err)
	}
	behaviour, err := behaviourOf(config.Config.Labels)
	if err != nil {
		return pulled{}, fmt.Errorf("image %s: %w", image, err)
	}
	return pulled{id: ref.Context().Name() + "@" + digest.String(), behaviour: behaviour}, nil
}

// behaviourOf reads BehaviourLabel. An unknown word is refused: taken for ready, it would let a test of a bad release pass.
func behaviourOf(labels map[string]string) (string, error) {
	b := labels[BehaviourLabel]
	switch word, _, _ := strings.Cut(b, "@"); word {
	case "":
		return behaveReady, nil
	case behaveReady, behaveNeverReady, behaveCrash:
		return b, nil
	default:
		return "", fmt.Errorf("label %s: %q must be %s, %s or %s", BehaviourLabel, b, behaveReady, behaveNeverReady, behaveCrash)
	}
}
