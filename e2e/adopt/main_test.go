package adopt

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
)

const atMost = 2 * time.Minute

// shared is the one cluster, Git host and agent; each story has an Application and a namespace of its own.
var shared struct {
	*world.World
	clients *kubernetes.Clientset
	image   string
	commits sync.Mutex
}

func TestMain(m *testing.M) {
	flag.Parse()
	o := world.Options{Node: cluster.NodeKwok, AuditLog: true}
	os.Exit(world.RunTests(m, "adopt", 20*time.Minute, o, func(ctx context.Context, w *world.World) (err error) {
		shared.World, shared.clients = w, kubernetes.NewForConfigOrDie(w.Cluster.RESTConfig())
		if shared.image, err = w.Sample(ctx, "1", "ready"); err != nil {
			return err
		}
		_, err = w.StartAgent(ctx, world.AgentOptions{})
		return err
	}))
}

// story is one Application, its folder in Git and its namespace, which have the same name.
type story struct {
	*testing.T
	name string
}

func (s story) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s story) commit(message string, changes ...gitsource.Change) {
	s.Helper()
	shared.commits.Lock()
	defer shared.commits.Unlock()
	_, err := shared.Commit(s.Context(), message, changes...)
	s.must(err)
}

func (s story) eventually(f func() error) {
	s.Helper()
	s.must(world.Eventually(s.Context(), atMost, f))
}

// ready waits until what a commit was made for is there, and the Application Ready. Others commit at the same time, so
// that the branch need not stand at this commit when the agent looks.
func (s story) ready(done func() error) {
	s.Helper()
	s.eventually(func() error { return errors.Join(shared.Ready(s.Context(), s.name, ""), done()) })
}

// application is the file that declares the story's.
func (s story) application() gitsource.Change {
	return world.Write("clusters/demo/"+s.name+".yaml", fmt.Sprintf(`apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: %s, namespace: slipway-system}
spec:
  sourceRef: {name: fleet}
  path: apps/%[1]s
  targetNamespace: %[1]s
`, s.name))
}

// namespace makes the story's, before anything of it is in Git.
func (s story) namespace() {
	s.Helper()
	_, err := shared.clients.CoreV1().Namespaces().Create(s.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name}}, metav1.CreateOptions{})
	s.must(err)
}

func (s story) deployment() *appsv1.Deployment {
	s.Helper()
	found, err := shared.clients.AppsV1().Deployments(s.name).Get(s.Context(), "web", metav1.GetOptions{})
	s.must(err)
	return found
}

// available waits until the Deployment has that many pods, all up to date.
func (s story) available(replicas int32) {
	s.Helper()
	s.eventually(func() error {
		found, err := shared.clients.AppsV1().Deployments(s.name).Get(s.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		status := found.Status
		if status.ObservedGeneration != found.Generation || *found.Spec.Replicas != replicas ||
			status.AvailableReplicas != replicas || status.UpdatedReplicas != replicas || status.Replicas != replicas {
			return fmt.Errorf("asked for %d replicas, status %+v; want %d", *found.Spec.Replicas, status, replicas)
		}
		return nil
	})
}

// pods are the UIDs of the story's pods, and what ReplicaSet each is of.
func (s story) pods() map[types.UID]string {
	s.Helper()
	pods, err := shared.clients.CoreV1().Pods(s.name).List(s.Context(), metav1.ListOptions{})
	s.must(err)
	found := map[types.UID]string{}
	for _, pod := range pods.Items {
		found[pod.UID] = metav1.GetControllerOf(&pod).Name
	}
	return found
}
