package operate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const (
	agentImage = "registry.example/slipway-agent@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	rollouts   = "Rollout"
)

// shop is a workload of each sort that matters here.
func shop(image string) []gitsource.Change {
	return []gitsource.Change{
		world.Write("README.md", "# Fleet\n"),
		world.Write("clusters/demo/web.yaml", `apiVersion: v1
kind: Namespace
metadata: {name: web}
---
apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: web, namespace: slipway-system}
spec:
  sourceRef: {name: fleet}
  path: apps/web
`),
		world.Write("apps/web/web.yaml", `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: web, image: "`+image+`", envFrom: [{configMapRef: {name: settings}}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: web}
data: {GREETING: hello}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: apart, namespace: web}
data: {by: no Rollout}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: slipway.dev/v1alpha1
kind: Rollout
metadata: {name: web, namespace: web}
spec:
  workloadRef: {name: web}
  strategy: {rolling: {progressDeadline: 1m}}
`),
	}
}

// older applies what an earlier version printed.
func (b *bed) older() {
	b.Helper()
	content, err := os.ReadFile("../../manifests/install/testdata/older.yaml")
	b.must(err)
	text := strings.NewReplacer("production-eu", world.ClusterName, "https://git.example/fleet.git", b.URL).Replace(string(content))
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			b.Fatal(err)
		}
		b.eventually(func() error { // a kind is served some moments after its definition
			return b.Kube.Apply(b.Context(), client.ApplyConfigurationFromUnstructured(object.DeepCopy()), client.FieldOwner("slipway-install"), client.ForceOwnership)
		})
	}
	b.must(b.Kube.Create(b.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: "fleet"}, StringData: map[string]string{"username": "robin", "password": "of nobody"},
	}))
	b.often()
}

// often has the source looked at each second.
func (b *bed) often() {
	b.Helper()
	source := &v1alpha1.GitSource{ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: "fleet"}}
	b.must(b.Kube.Patch(b.Context(), source, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"interval":"1s"}}`))))
}

// slipway runs the command line as robin, an administrator of the cluster, and wants its exit code.
func (b *bed) slipway(want int, args ...string) string {
	b.Helper()
	binary, err := b.Binary(b.Context(), "slipway")
	b.must(err)
	cmd := exec.CommandContext(b.Context(), binary, append(args, "--kubeconfig", b.Cluster.Kubeconfig())...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(b.Dir, "cli"), "SLIPWAY_GIT_USERNAME=robin", "SLIPWAY_GIT_PASSWORD=robin's token",
		"GIT_AUTHOR_NAME=Robin Marsh", "GIT_AUTHOR_EMAIL=robin@shop.example")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		b.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		b.Fatalf("slipway %s: exit code %d, want %d\n%s", strings.Join(args, " "), code, want, out.String())
	}
	return out.String()
}

func (b *bed) install() {
	b.Helper()
	b.slipway(0, "install", "--cluster", world.ClusterName, "--url", b.URL, "--secret", "fleet", "--agent-image", agentImage, "--apply")
	b.often()
}

// workloads are the resource versions of all that was applied, and of the pods.
func (b *bed) workloads(without ...string) map[string]string {
	b.Helper()
	versions := map[string]string{}
	for _, kind := range []schema.GroupVersionKind{
		{Version: "v1", Kind: "ConfigMap"},
		{Version: "v1", Kind: "Service"},
		{Version: "v1", Kind: "Pod"},
		{Group: "apps", Version: "v1", Kind: "Deployment"},
		{Group: "apps", Version: "v1", Kind: "ReplicaSet"},
		{Group: v1alpha1.Group, Version: "v1alpha1", Kind: rollouts},
	} {
		if len(without) > 0 && without[0] == kind.Kind {
			continue
		}
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(kind)
		b.must(b.Kube.List(b.Context(), list, client.InNamespace("web")))
		if len(list.Items) == 0 {
			b.Fatalf("no %s in the namespace web", kind.Kind)
		}
		for _, item := range list.Items {
			versions[kind.Kind+" "+item.Name] = item.ResourceVersion
		}
	}
	return versions
}

func (b *bed) unchanged(when string, before map[string]string, without ...string) {
	b.Helper()
	after := b.workloads(without...)
	for name := range maps.Keys(before) {
		if after[name] != before[name] {
			b.Errorf("%s: %s was at version %s and is at %q", when, name, before[name], after[name])
		}
	}
}

// goesOn pushes a commit that changes no Application, and waits until the agent is done with it.
func (b *bed) goesOn(line string) {
	b.Helper()
	tip, err := b.Commit(b.Context(), line, world.Write("README.md", "# "+line+"\n"))
	b.must(err)
	b.must(b.WaitReady(b.Context(), atMost, tip, world.ClusterName, "web"))
}

func (b *bed) agent() *world.Process {
	b.Helper()
	process, err := b.StartAgent(b.Context(), world.AgentOptions{User: otherAgent})
	b.must(err)
	return process
}

// gone waits until an object is not there.
func (b *bed) gone(object client.Object, namespace, name string) {
	b.Helper()
	b.eventually(func() error {
		err := b.Kube.Get(b.Context(), client.ObjectKey{Namespace: namespace, Name: name}, object)
		if err == nil {
			return fmt.Errorf("%T %s is still there", object, name)
		}
		return client.IgnoreNotFound(err)
	})
}

// TestUpgradeAndUninstall: neither a newer version over an older one, nor the end of it all, touches what runs.
func TestUpgradeAndUninstall(t *testing.T) {
	b := newBed(t, cluster.NodeKwok)
	image, err := b.Sample(t.Context(), "1", "ready")
	b.must(err)
	tip, err := b.Commit(t.Context(), "Start", shop(image)...)
	b.must(err)
	b.older()
	b.grant(otherAgent)
	agent := b.agent()
	b.must(b.WaitReady(t.Context(), atMost, tip, world.ClusterName))
	b.eventually(func() error { return b.Deployment(t.Context(), "web", "web", image) })
	b.must(b.WaitReady(t.Context(), atMost, tip, "web"))
	before := b.workloads()

	b.install()
	var deployment appsv1.Deployment
	b.must(b.Kube.Get(t.Context(), client.ObjectKey{Namespace: world.Namespace, Name: "slipway-agent"}, &deployment))
	if deployment.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || *deployment.Spec.Replicas != 2 {
		t.Errorf("the agent's Deployment is still the older one: %+v", deployment.Spec.Strategy)
	}
	b.goesOn("After the upgrade")
	b.unchanged("after the upgrade", before)
	agent.Kill()
	agent = b.agent()
	b.goesOn("After the agent's restart")
	b.unchanged("after the agent's restart", before)

	if out := b.slipway(2, "uninstall"); !strings.Contains(out, "--leave-workloads-unmanaged") {
		t.Errorf("uninstall without its flag says:\n%s", out)
	}
	t.Log(b.slipway(0, "uninstall", "--leave-workloads-unmanaged"))
	b.gone(&appsv1.Deployment{}, world.Namespace, "slipway-agent")
	b.gone(&rbacv1.ClusterRole{}, "", "slipway-agent")
	b.gone(&rbacv1.ClusterRoleBinding{}, "", "slipway-agent")
	app, err := b.Application(t.Context(), "web")
	b.must(err)
	if app.Spec.DeletionPolicy == v1alpha1.DeletionOrphan || len(app.Finalizers) > 0 || len(app.Annotations) > 0 {
		t.Errorf("deletionPolicy %q, finalizers %v, annotations %v", app.Spec.DeletionPolicy, app.Finalizers, app.Annotations)
	}
	delete(before, rollouts+" web") // its finalizer is gone
	b.unchanged("after uninstall", before)

	agent.Kill()
	b.install()
	agent = b.agent()
	b.goesOn("Installed again")
	b.unchanged("installed again", before)

	b.slipway(0, "uninstall", "--leave-workloads-unmanaged", "--delete-crds")
	b.gone(&apiextensionsv1.CustomResourceDefinition{}, "", "applications.slipway.dev")
	if err := b.Kube.List(t.Context(), &v1alpha1.ApplicationList{}); !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
		t.Errorf("Applications are still served: %v", err)
	}
	b.unchanged("without definitions", before, rollouts)
	if err := agent.Stop(10 * time.Second); err != nil {
		t.Logf("the agent, which has lost all rights, ended with: %v", err)
	}
	if out := b.slipway(0, "uninstall", "--leave-workloads-unmanaged", "--delete-crds", "--timeout", "1s"); strings.Contains(out, "deleted") {
		t.Errorf("there was something left:\n%s", out)
	}
}
