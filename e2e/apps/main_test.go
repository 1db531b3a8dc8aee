package apps

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const atMost = time.Minute

// shared is the one cluster, Git host and agent of all stories; each has an Application and a namespace of its own.
var shared struct {
	*world.World
	clients *kubernetes.Clientset
	commits sync.Mutex
	kubelet *kubelet
}

func TestMain(m *testing.M) {
	flag.Parse()
	tests := &watched{M: m}
	o := world.Options{Node: cluster.NodeNone, AuditLog: true}
	os.Exit(world.RunTests(tests, "apps", 20*time.Minute, o, func(ctx context.Context, w *world.World) (err error) {
		shared.World, shared.clients = w, kubernetes.NewForConfigOrDie(w.Cluster.RESTConfig())
		if shared.kubelet, err = startKubelet(ctx, w); err != nil {
			return err
		}
		tests.agent, err = w.StartAgent(ctx, world.AgentOptions{})
		return err
	}))
}

// watched are tests that also fail when their agent has panicked.
type watched struct {
	*testing.M
	agent *world.Process
}

// Run runs the tests.
func (w *watched) Run() int {
	code := w.M.Run()
	if text, err := os.ReadFile(w.agent.Log); err == nil && bytes.Contains(text, []byte("panic")) {
		fmt.Fprintf(os.Stderr, "the agent's log:\n%s\n", text)
		return 1
	}
	return code
}

// story is one Application, its folder in Git and its namespace, which have the same name.
type story struct {
	*testing.T
	name string
}

// tell begins a story; its Application has spec, further lines of YAML with an indent of two.
func tell(t *testing.T, name, spec string, files ...gitsource.Change) story {
	t.Helper()
	t.Parallel()
	s := story{t, name}
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + "}\n"
	s.commit("Start "+name, append(files, world.Write("clusters/demo/"+name+"-namespace.yaml", namespace), application(name, spec))...)
	return s
}

// application is the file that declares one.
func application(name, spec string) gitsource.Change {
	return world.Write("clusters/demo/"+name+".yaml", fmt.Sprintf(`apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: %s, namespace: slipway-system, annotations: {slipway.dev/prune: enabled}}
spec:
  sourceRef: {name: fleet}
  path: apps/%[1]s
  targetNamespace: %[1]s
%s`, name, spec))
}

// file is one in the folder of the Application.
func (s story) file(name, content string) gitsource.Change {
	return world.Write("apps/"+s.name+"/"+name, content)
}

func (s story) commit(message string, changes ...gitsource.Change) gitsource.ObjectID {
	s.Helper()
	shared.commits.Lock()
	defer shared.commits.Unlock()
	id, err := shared.Commit(s.Context(), message, changes...)
	s.must(err)
	return id
}

func (s story) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// eventually waits until f is happy, and says what the Application says when it is not.
func (s story) eventually(f func() error) {
	s.Helper()
	err := world.Eventually(s.Context(), atMost, f)
	if err == nil {
		return
	}
	app, readErr := shared.Application(s.Context(), s.name)
	if readErr != nil {
		s.Fatal(err, readErr)
	}
	s.Fatalf("%v\nconditions: %+v\nhooks: %+v", err, app.Status.Conditions, app.Status.Hooks)
}

// ready waits until the Application is Ready.
func (s story) ready() {
	s.Helper()
	s.eventually(func() error { return shared.Ready(s.Context(), s.name, "") })
}

// says waits until the condition Ready has a reason, with a message that says all of words.
func (s story) says(reason string, words ...string) {
	s.Helper()
	s.eventually(func() error { return saying(s.Context(), s.name, reason, words...) })
}

func saying(ctx context.Context, name, reason string, words ...string) error {
	app, err := shared.Application(ctx, name)
	if err != nil {
		return err
	}
	ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Reason != reason {
		return fmt.Errorf("ready: %+v, want reason %s", ready, reason)
	}
	for _, word := range words {
		if !strings.Contains(ready.Message, word) {
			return fmt.Errorf("message %q does not say %q", ready.Message, word)
		}
	}
	return nil
}

// stalled reports whether the Application is.
func (s story) stalled() bool {
	s.Helper()
	app, err := shared.Application(s.Context(), s.name)
	s.must(err)
	return meta.IsStatusConditionTrue(app.Status.Conditions, v1alpha1.ConditionStalled)
}

// setting is the value of a ConfigMap "settings"; empty when there is none.
func (s story) setting() string {
	s.Helper()
	settings, err := shared.clients.CoreV1().ConfigMaps(s.name).Get(s.Context(), "settings", metav1.GetOptions{})
	if client.IgnoreNotFound(err) != nil {
		s.Fatal(err)
	}
	return settings.Data["value"]
}

// set is the file with the ConfigMap "settings".
func (s story) set(value string) gitsource.Change {
	return s.file("settings.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {value: "+value+"}\n")
}

// has waits until the setting has a value.
func (s story) has(value string) {
	s.Helper()
	s.eventually(func() error {
		if got := s.setting(); got != value {
			return fmt.Errorf("the setting is %q, want %q", got, value)
		}
		return nil
	})
}

// events are those of the Application, as text.
func (s story) events() string {
	s.Helper()
	events, err := shared.clients.CoreV1().Events(world.Namespace).List(s.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + s.name})
	s.must(err)
	var lines []string
	for _, e := range events.Items {
		lines = append(lines, e.Reason+": "+e.Message)
	}
	return strings.Join(lines, "\n")
}

// pod waits for the newest pod of a Job that has not ended.
func (s story) pod(job string) *corev1.Pod {
	s.Helper()
	var found *corev1.Pod
	s.eventually(func() error {
		pods, err := shared.clients.CoreV1().Pods(s.name).List(s.Context(), metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=" + job})
		if err != nil {
			return err
		}
		for i := range pods.Items {
			if pods.Items[i].Status.Phase == corev1.PodPending && pods.Items[i].DeletionTimestamp == nil {
				found = &pods.Items[i]
				return nil
			}
		}
		return fmt.Errorf("no pod of Job %s waits among %d", job, len(pods.Items))
	})
	return found
}

// end ends the pod of a Job as its program would, and returns it.
func (s story) end(job string, code int32) *corev1.Pod {
	s.Helper()
	pod := s.pod(job)
	pod.Status.Phase = corev1.PodSucceeded
	if code != 0 {
		pod.Status.Phase = corev1.PodFailed
	}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "main", Image: "migrate",
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.Now(), StartedAt: metav1.Now()}},
	}}
	_, err := shared.clients.CoreV1().Pods(s.name).UpdateStatus(s.Context(), pod, metav1.UpdateOptions{})
	s.must(err)
	return pod
}

// spoil changes the setting as a person would.
func (s story) spoil() {
	s.Helper()
	_, err := shared.clients.CoreV1().ConfigMaps(s.name).Patch(s.Context(), "settings", types.MergePatchType,
		[]byte(`{"data":{"value":"spoiled"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	s.must(err)
}

// is fails unless a ConfigMap of the namespace has a value.
func (s story) is(name, value string) error {
	found, err := shared.clients.CoreV1().ConfigMaps(s.name).Get(s.Context(), name, metav1.GetOptions{})
	if err == nil && found.Data["value"] != value {
		err = fmt.Errorf("%s is %q, want %q", name, found.Data["value"], value)
	}
	return err
}
