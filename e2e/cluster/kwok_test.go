package cluster_test

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/slipway-cd/slipway/e2e/cluster"
)

func deployment(name, image string, replicas, deadline int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas:                &replicas,
			ProgressDeadlineSeconds: &deadline,
			Selector:                &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image, Ports: []corev1.ContainerPort{{ContainerPort: 8080}}}}},
			},
		},
	}
}

// eventually polls check until it returns "", and fails with what it last returned.
func eventually(t *testing.T, within time.Duration, check func() string) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := check()
		if missing == "" {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("after %s: %s", within, missing)
		case <-tick.C:
		}
	}
}

func client(t *testing.T, c *cluster.Cluster) kubernetes.Interface {
	t.Helper()
	k, err := kubernetes.NewForConfig(c.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func registry(t *testing.T) *cluster.Registry {
	t.Helper()
	r, err := cluster.StartRegistry(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func image(t *testing.T, r *cluster.Registry, behaviour string) string {
	t.Helper()
	ref, err := cluster.BuildImage(t.Context(), r, cluster.ImageSpec{
		Package: "testdata/web", Repository: "web",
		Env:    map[string]string{"GREETING": "hello from a pod"},
		Labels: map[string]string{cluster.BehaviourLabel: behaviour},
	})
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// The cluster is up before the images are pushed: what a pod does is read from the registry when it is scheduled.
func TestSimulatedPodsBehaveAsTheirImagesSay(t *testing.T) {
	r := registry(t)
	c := start(t, cluster.Options{Name: "sim", Node: cluster.NodeKwok, KwokNodes: 2, Registry: r})
	if simulated, reason := c.Simulated(); !simulated || reason == "" {
		t.Errorf("Simulated() = %v, %q", simulated, reason)
	}
	api := client(t, c)
	apps := api.AppsV1().Deployments("default")
	create := func(name, image string) {
		t.Helper()
		if _, err := apps.Create(t.Context(), deployment(name, image, 2, 2), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	ready, never, crash := image(t, r, "ready"), image(t, r, "never-ready"), image(t, r, "crash")
	begin := time.Now()
	create("good", ready)
	create("elsewhere", image(t, r, "crash@production"))
	create("stuck", never)
	create("broken", crash)
	create("here", image(t, r, "crash@default"))
	create("absent", r.Host()+"/nowhere:1")
	for _, name := range []string{"good", "elsewhere"} {
		eventually(t, 30*time.Second, func() string {
			d, err := apps.Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			if d.Status.AvailableReplicas != 2 {
				return d.Status.String()
			}
			return ""
		})
	}
	t.Logf("good: available after %s", time.Since(begin).Round(time.Millisecond))
	for name, want := range map[string]string{"stuck": "", "broken": "CrashLoopBackOff", "here": "CrashLoopBackOff", "absent": "ImagePullBackOff"} {
		eventually(t, 30*time.Second, func() string {
			d, err := apps.Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			if d.Status.ReadyReplicas != 0 {
				t.Fatalf("%s: %d ready replicas", name, d.Status.ReadyReplicas)
			}
			for _, cond := range d.Status.Conditions {
				if cond.Reason == "ProgressDeadlineExceeded" {
					return ""
				}
			}
			return name + ": " + d.Status.String()
		})
		pods, err := api.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pods.Items {
			got := ""
			if w := p.Status.ContainerStatuses[0].State.Waiting; w != nil {
				got = w.Reason
			}
			if got != want {
				t.Errorf("%s: waiting reason %q, want %q", p.Name, got, want)
			}
			for k := range p.Annotations {
				if strings.Contains(k, "slipway") {
					t.Errorf("%s: annotation %s gives the behaviour away", p.Name, k)
				}
			}
		}
	}
}
