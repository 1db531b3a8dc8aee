package adopt

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
)

// scaler is an autoscaler in Git. Nothing measures here, so it keeps to its bounds: those it knows without metrics.
func (s story) scaler(least int) gitsource.Change {
	return world.Write("apps/"+s.name+"/scaler.yaml", fmt.Sprintf(`apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: %d
  maxReplicas: 9
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
`, least))
}

// course is every number of replicas that the Deployment was asked for, in order.
type course struct {
	mu      sync.Mutex
	numbers []int32
	ended   chan struct{}
}

// follow watches the Deployment until the test ends.
func (s story) follow() *course {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	watch, err := shared.clients.AppsV1().Deployments(s.name).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=web"})
	s.must(err)
	c := &course{ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		for event := range watch.ResultChan() {
			deployment, is := event.Object.(*appsv1.Deployment)
			if !is {
				continue
			}
			c.mu.Lock()
			if n := *deployment.Spec.Replicas; len(c.numbers) == 0 || c.numbers[len(c.numbers)-1] != n {
				c.numbers = append(c.numbers, n)
			}
			c.mu.Unlock()
		}
	}()
	s.Cleanup(func() {
		cancel()
		<-c.ended
	})
	return c
}

// went holds that the numbers were these and no others.
func (s story) went(c *course, want ...int32) {
	s.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if fmt.Sprint(c.numbers) != fmt.Sprint(want) {
		s.Errorf("the number of replicas went %v, want %v", c.numbers, want)
	}
}

// A number of replicas that leaves Git goes to the autoscaler that comes in its place: it never falls, no pod is replaced, and
// afterwards nobody turns it back.
func TestAutoscalerTakesOver(t *testing.T) {
	t.Parallel()
	s := story{t, "scaled"}
	s.namespace()
	counted := without("one")
	free := strings.Replace(counted, "  replicas: 2\n", "", 1)
	s.commit("A number", s.application(), s.file(counted))
	s.ready(s.has("one"))
	s.available(2)
	pods, c := s.pods(), s.follow()

	s.commit("An autoscaler in its place", s.file(free), s.scaler(4))
	s.available(4)
	s.ready(s.has("one"))
	s.kept(pods)
	// Another version of the autoscaler, and then other settings: what it made of the number stays.
	s.commit("More", s.scaler(5))
	s.available(5)
	s.ready(s.has("one"))
	pods = s.pods()
	start := time.Now()
	s.commit("A setting", s.file(strings.Replace(free, "value: one", "value: two", 1)))
	s.ready(s.has("two"))
	s.available(5)
	s.kept(pods)
	// By the scale subresource too, as an autoscaler that measures does.
	scale, err := shared.clients.AppsV1().Deployments(s.name).GetScale(t.Context(), "web", metav1.GetOptions{})
	s.must(err)
	scale.Spec.Replicas = 7
	_, err = shared.clients.AppsV1().Deployments(s.name).UpdateScale(t.Context(), "web", scale, metav1.UpdateOptions{FieldManager: "kube-controller-manager"})
	s.must(err)
	s.available(7)
	s.kept(pods)
	s.went(c, 2, 4, 5, 7)
	requests, err := shared.Requests(start)
	s.must(err)
	for _, r := range requests {
		if r.Namespace == s.name && r.Resource == "deployments" && r.Verb != "get" && r.Verb != "list" {
			t.Errorf("after the autoscaler has it, the agent sent %s", r)
		}
	}
	if text := s.healings(); text != "" {
		t.Errorf("events:\n%s", text)
	}
}

// Where the autoscaler comes while Git still has a number, both are told of; as soon as the number leaves Git, peace is kept.
func TestNumberBesidesAnAutoscaler(t *testing.T) {
	t.Parallel()
	s := story{t, "contested"}
	s.namespace()
	counted := without("one")
	s.commit("A number", s.application(), s.file(counted))
	s.ready(s.has("one"))
	s.available(2)
	s.commit("An autoscaler besides", s.scaler(3))
	s.eventually(func() error {
		if text := s.healings(); !strings.Contains(text, "spec.replicas") || !strings.Contains(text, "kube-controller-manager") {
			return fmt.Errorf("events:\n%s", text)
		}
		return nil
	})
	pods := s.pods()
	s.commit("The number leaves", s.file(strings.Replace(without("two"), "  replicas: 2\n", "", 1)))
	s.ready(s.has("two"))
	s.eventually(func() error {
		scaler, err := shared.clients.AutoscalingV2().HorizontalPodAutoscalers(s.name).Get(t.Context(), "web", metav1.GetOptions{})
		if err == nil && scaler.Status.DesiredReplicas != 3 {
			err = fmt.Errorf("the autoscaler asks for %d", scaler.Status.DesiredReplicas)
		}
		return err
	})
	s.available(3)
	for uid := range maps.Keys(pods) {
		if s.pods()[uid] != "" {
			return // at least one pod of before is left: the Deployment was scaled, not replaced
		}
	}
	t.Errorf("pods %v, before %v", s.pods(), pods)
}

// What a former tool counted and Git does not is handed over as it is, too, also where nobody knows any more who it was.
func TestAdoptedWithoutANumber(t *testing.T) {
	for name, make := range map[string]func(story, tool){"uncounted": story.appliedByServer, "uncounted-nobody": story.wiped} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := story{t, name}
			s.namespace()
			make(s, tool{manager: "kustomize-controller"})
			s.available(2)
			c := s.follow()
			s.commit("Without a number", s.application(), s.file(strings.Replace(without("two"), "  replicas: 2\n", "", 1)), s.scaler(3))
			s.ready(s.removed)
			s.available(3)
			s.went(c, 2, 3)
		})
	}
}

// has is whether the setting has a value.
func (s story) has(value string) func() error {
	return func() error {
		settings, err := shared.clients.CoreV1().ConfigMaps(s.name).Get(s.Context(), "settings", metav1.GetOptions{})
		if err == nil && settings.Data["value"] != value {
			err = fmt.Errorf("settings: %v, want %s", settings.Data, value)
		}
		return err
	}
}

// kept holds that these pods are still there.
func (s story) kept(pods map[types.UID]string) {
	s.Helper()
	now := s.pods()
	for uid, set := range pods {
		if now[uid] != set {
			s.Errorf("a pod of %s was replaced: %v, before %v", set, now, pods)
			return
		}
	}
}
