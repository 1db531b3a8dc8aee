package operate

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/install"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// login is what a person and the agents clone with.
func (b *bed) login(kube client.Client) {
	b.Helper()
	b.must(kube.Create(b.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: "fleet"}, StringData: map[string]string{"username": "robin", "password": "of nobody"},
	}))
}

// bootstrap runs the command.
func (b *bed) bootstrap(name string, more ...string) string {
	b.Helper()
	return b.slipway(0, append([]string{"bootstrap", "--cluster", name, "--url", b.URL, "--secret", "fleet", "--agent-image", agentImage}, more...)...)
}

// there fails unless all that makes an agent manage itself is there.
func there(b *bed, kube client.Client, name string) error {
	for _, look := range []struct {
		object    client.Object
		namespace string
		name      string
	}{
		{&v1alpha1.Application{}, world.Namespace, name},
		{&v1alpha1.GitSource{}, world.Namespace, install.SourceName},
		{&appsv1.Deployment{}, world.Namespace, install.AgentName},
		{&corev1.Service{}, world.Namespace, "slipway-agent-webhooks"},
		{&corev1.Namespace{}, "", world.Namespace},
		{&rbacv1.ClusterRole{}, "", install.AgentName},
		{&apiextensionsv1.CustomResourceDefinition{}, "", "applications.slipway.dev"},
	} {
		if err := kube.Get(b.Context(), client.ObjectKey{Namespace: look.namespace, Name: look.name}, look.object); err != nil {
			return err
		}
		if look.object.GetDeletionTimestamp() != nil {
			return fmt.Errorf("%T %s is being deleted", look.object, look.name)
		}
	}
	return nil
}

// TestBootstrap: an agent manages itself from Git, never takes itself away, and a second cluster is built from Git alone.
func TestBootstrap(t *testing.T) {
	b := newBed(t, cluster.NodeKwok)
	_, err := b.Commit(t.Context(), "Start", world.Write("slipway.yaml", "apiVersion: slipway.dev/v1alpha1\nkind: Delivery\n"))
	b.must(err)
	b.bootstrap(world.ClusterName)
	b.login(b.Kube)
	b.often() // Git does not say how often, so this is nobody's drift
	b.bootstrap("second", "--commit-only")
	if out := b.bootstrap("second", "--commit-only"); !strings.Contains(out, "nothing to commit") {
		t.Errorf("the same again says %q", out)
	}
	b.grant(otherAgent)
	b.agent()
	tip, err := b.Tip(t.Context())
	b.must(err)
	b.must(b.WaitReady(t.Context(), atMost, tip, world.ClusterName))
	b.must(there(b, b.Kube, world.ClusterName))

	b.heals()
	b.updatesItself()
	b.staysWithoutFolder()
	b.fromGitAlone()
}

// heals: what is taken from the agent's own comes back.
func (b *bed) heals() {
	b.Helper()
	service := &corev1.Service{}
	key := client.ObjectKey{Namespace: world.Namespace, Name: "slipway-agent-webhooks"}
	b.must(b.Kube.Get(b.Context(), key, service))
	was := service.UID
	b.must(b.Kube.Delete(b.Context(), service))
	b.eventually(func() error {
		if err := b.Kube.Get(b.Context(), key, service); err != nil {
			return err
		}
		if service.UID == was {
			return errors.New("the Service is not deleted yet")
		}
		return nil
	})
}

// updatesItself: a commit with another image is all that a newer version needs.
func (b *bed) updatesItself() {
	b.Helper()
	const newer = "registry.example/slipway-agent@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	b.bootstrap(world.ClusterName, "--commit-only", "--agent-image", newer)
	b.eventually(func() error { return b.Deployment(b.Context(), world.Namespace, install.AgentName, newer) })
}

// staysWithoutFolder: the commit that removes the agent's folder removes nothing from the cluster.
func (b *bed) staysWithoutFolder() {
	b.Helper()
	tip, err := b.Commit(b.Context(), "Remove the agent's folder",
		world.Remove("clusters/demo/slipway-system/agent.yaml"), world.Remove("clusters/demo/slipway-system/definitions.yaml"),
		world.Write("clusters/demo/left.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: left, namespace: default}\n"))
	b.must(err)
	b.eventually(func() error {
		return b.Kube.Get(b.Context(), client.ObjectKey{Namespace: "default", Name: "left"}, &corev1.ConfigMap{})
	})
	b.must(b.WaitReady(b.Context(), atMost, tip, world.ClusterName))
	b.must(there(b, b.Kube, world.ClusterName))
	b.bootstrap(world.ClusterName)
}

// fromGitAlone builds the second cluster from its folder, and lets its agent go on.
func (b *bed) fromGitAlone() {
	b.Helper()
	second, err := cluster.Start(b.Context(), cluster.Options{Dir: filepath.Join(b.Dir, "second"), Name: "second", Node: cluster.NodeKwok, Log: b.Output()})
	b.must(err)
	b.Cleanup(func() { _ = second.Stop() })
	kube, err := client.New(second.RESTConfig(), client.Options{Scheme: b.Kube.Scheme()})
	b.must(err)
	for _, file := range []string{"definitions.yaml", "agent.yaml"} {
		content, err := b.File(b.Context(), "clusters/second/slipway-system/"+file)
		b.must(err)
		objects, err := install.Parse([]byte(content))
		b.must(err)
		for _, object := range objects {
			b.eventually(func() error {
				return kube.Apply(b.Context(), client.ApplyConfigurationFromUnstructured(object.DeepCopy()), client.FieldOwner("kubectl"), client.ForceOwnership)
			})
		}
	}
	b.login(kube)
	kubeconfig, err := second.UserKubeconfig("system:serviceaccount:slipway-system:slipway-agent")
	b.must(err)
	binary, err := b.Binary(b.Context(), "slipway-agent")
	b.must(err)
	_, err = b.World.Run("agent-second", binary, []string{
		"--cluster", "second", "--kubeconfig", kubeconfig, "--cache-dir", filepath.Join(b.Dir, "cache-second"), "--metrics-address", "0", "--health-address", "0",
	}, nil)
	b.must(err)
	b.eventually(func() error {
		app := &v1alpha1.Application{}
		if err := kube.Get(b.Context(), client.ObjectKey{Namespace: world.Namespace, Name: "second"}, app); err != nil {
			return err
		}
		ready := slices.ContainsFunc(app.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == v1alpha1.ConditionReady && c.Status == metav1.ConditionTrue
		})
		if !ready {
			return fmt.Errorf("the second cluster: %+v", app.Status.Conditions)
		}
		return nil
	})
	b.must(there(b, kube, "second"))
}
