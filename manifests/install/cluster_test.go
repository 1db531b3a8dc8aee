package install_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/install"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const (
	agentUser = "slipway-agent"
	namespace = "slipway-system"
)

// bed is a real API server with what `slipway install` applies.
type bed struct {
	*testing.T
	admin, agent client.Client
	agentConfig  *rest.Config
}

func newBed(t *testing.T) *bed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var log bytes.Buffer
	c, err := cluster.Start(ctx, cluster.Options{Name: "install", Node: cluster.NodeNone, Log: &log})
	if err != nil {
		t.Fatalf("%s\nno API server: %v", log.String(), err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	b := &bed{T: t, admin: newClient(t, c.RESTConfig())}
	b.apply(install.Options{Cluster: "demo", URL: "https://git.example/fleet.git", SecretName: "fleet", AgentUser: agentUser, AgentImage: agentImage})
	kubeconfig, err := c.UserKubeconfig(agentUser)
	if err != nil {
		t.Fatal(err)
	}
	if b.agentConfig, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		t.Fatal(err)
	}
	b.agent = newClient(t, b.agentConfig)
	return b
}

func newClient(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// apply applies everything in order and returns the resource versions.
func (b *bed) apply(o install.Options) map[manifests.Ref]string {
	b.Helper()
	objects, err := install.Manifests(o)
	if err != nil {
		b.Fatal(err)
	}
	versions := map[manifests.Ref]string{}
	for _, object := range objects {
		versions[manifests.RefOf(object)] = b.applyOne(object)
	}
	return versions
}

// applyOne tries again while the API server does not serve a kind whose definition it has just got.
func (b *bed) applyOne(object *unstructured.Unstructured) string {
	b.Helper()
	end, tick := time.After(30*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		sent := object.DeepCopy()
		err := b.admin.Apply(b.Context(), client.ApplyConfigurationFromUnstructured(sent), client.FieldOwner("slipway-install"), client.ForceOwnership)
		if err == nil {
			return b.version(object)
		}
		if !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
			b.Fatalf("%s: %v", manifests.RefOf(object), err)
		}
		select {
		case <-end:
			b.Fatalf("%s: %v", manifests.RefOf(object), err)
		case <-tick.C:
		}
	}
}

func (b *bed) version(object *unstructured.Unstructured) string {
	b.Helper()
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(object.GroupVersionKind())
	if err := b.admin.Get(b.Context(), client.ObjectKeyFromObject(object), live); err != nil {
		b.Fatal(err)
	}
	switch object.GetKind() {
	case "CustomResourceDefinition", "Deployment", "Namespace", "PodDisruptionBudget":
		return "" // controllers write their status meanwhile
	}
	return live.GetResourceVersion()
}

func TestOnARealAPIServer(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	t.Run("a second time changes nothing", b.again)
	t.Run("the root Application is complete", b.root)
	t.Run("the agent's pod is admitted", b.pod)
	t.Run("the agent may do its work", b.work)
	t.Run("the agent may not rise above itself", b.rise)
}

func (b *bed) again(t *testing.T) {
	o := install.Options{Cluster: "demo", URL: "https://git.example/fleet.git", SecretName: "fleet", AgentUser: agentUser, AgentImage: agentImage}
	first := b.apply(o)
	for ref, version := range b.apply(o) {
		if first[ref] != version {
			t.Errorf("%s was changed", ref)
		}
	}
}

func (b *bed) root(t *testing.T) {
	var app v1alpha1.Application
	if err := b.agent.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "demo"}, &app); err != nil {
		t.Fatal(err)
	}
	if app.Spec.Path != "clusters/demo" || app.Spec.SourceRef.Name != install.SourceName || app.Spec.Prune == nil || !*app.Spec.Prune {
		t.Errorf("%+v", app.Spec)
	}
	var source v1alpha1.GitSource
	if err := b.agent.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: install.SourceName}, &source); err != nil {
		t.Fatal(err)
	}
	if source.Spec.URL != "https://git.example/fleet.git" || source.Spec.Branch != "main" || source.Spec.SecretRef == nil || source.Spec.SecretRef.Name != "fleet" {
		t.Errorf("%+v", source.Spec)
	}
}

// pod makes the Deployment's pod itself: Pod Security judges pods, and a Deployment whose pods are refused stays empty.
func (b *bed) pod(t *testing.T) {
	var deployment appsv1.Deployment
	if err := b.admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "slipway-agent"}, &deployment); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "trial", Labels: deployment.Spec.Template.Labels},
		Spec:       deployment.Spec.Template.Spec,
	}
	if err := b.admin.Create(t.Context(), pod.DeepCopy(), client.DryRunAll); err != nil {
		t.Errorf("the agent's pod is refused: %v", err)
	}
	pod.Spec.Containers[0].SecurityContext = nil
	if err := b.admin.Create(t.Context(), pod, client.DryRunAll); !apierrors.IsForbidden(err) {
		t.Errorf("a pod without a security context in the agent's namespace: %v, want forbidden", err)
	}
}

// work is what reconciler and rollout do: apply any kind, write status, record events, delete.
func (b *bed) work(t *testing.T) {
	ctx, owner := t.Context(), client.FieldOwner(manifests.FieldManager)
	for _, text := range []string{
		`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}`,
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"shop","namespace":"shop"},"data":{"a":"b"}}`,
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"shop","namespace":"shop"}}`,
		`{"apiVersion":"slipway.dev/v1alpha1","kind":"Inventory","metadata":{"name":"demo-0","namespace":"slipway-system"},"spec":{"application":"demo"}}`,
		`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"slipway-agent","namespace":"slipway-system"},"spec":{"holderIdentity":"trial"}}`,
		`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"shop","namespace":"shop"},"rules":[{"apiGroups":["apps"],"resources":["deployments"],"verbs":["get","patch"]}]}`,
		`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":"shop","namespace":"shop"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"shop"},"subjects":[{"kind":"ServiceAccount","name":"default","namespace":"shop"}]}`,
	} {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := b.agent.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), owner); err != nil {
			t.Errorf("%s: %v", manifests.RefOf(object), err)
		}
	}
	var deployments appsv1.DeploymentList
	if err := b.agent.List(ctx, &deployments); err != nil || len(deployments.Items) == 0 {
		t.Errorf("%d Deployments listed, %v", len(deployments.Items), err)
	}
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "demo"}}
	if err := b.agent.Status().Patch(ctx, app, client.RawPatch("application/merge-patch+json", []byte(`{"status":{"objects":4}}`))); err != nil || app.Status.Objects != 4 {
		t.Errorf("status: %d, %v", app.Status.Objects, err)
	}
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: "demo.1"},
		InvolvedObject: corev1.ObjectReference{Namespace: namespace, Name: "demo"}, Reason: "Applied", Type: corev1.EventTypeNormal,
	}
	if err := b.agent.Create(ctx, event); err != nil {
		t.Error(err)
	}
	if err := b.agent.Delete(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop"}}); err != nil {
		t.Error(err)
	}
}

// rise is what would make the agent, or whoever pushes to Git, more than the agent is.
func (b *bed) rise(t *testing.T) {
	ctx := t.Context()
	role := func(name string, rule rbacv1.PolicyRule) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule}}
	}
	for _, refused := range []client.Object{
		role("all", rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}),
		role("impersonates", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"users"}, Verbs: []string{"impersonate"}}),
		role("binds", rbacv1.PolicyRule{APIGroups: []string{"rbac.authorization.k8s.io"}, Resources: []string{"clusterroles"}, Verbs: []string{"bind", "escalate"}}),
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "admin"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: agentUser}},
		},
	} {
		if err := b.agent.Create(ctx, refused); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "attempting to grant RBAC permissions not currently held") {
			t.Errorf("%T %s: %v, want refused", refused, refused.GetName(), err)
		}
	}
	own := &rbacv1.ClusterRole{}
	if err := b.agent.Get(ctx, client.ObjectKey{Name: "slipway-agent"}, own); err != nil {
		t.Fatal(err)
	}
	own.Rules[0].Verbs = append(own.Rules[0].Verbs, "escalate")
	if err := b.agent.Update(ctx, own); !apierrors.IsForbidden(err) {
		t.Errorf("more rights for itself: %v, want refused", err)
	}
	config := rest.CopyConfig(b.agentConfig)
	config.Impersonate = rest.ImpersonationConfig{UserName: "somebody", Groups: []string{"system:masters"}}
	disguised, err := client.New(config, client.Options{})
	if err == nil {
		err = disguised.List(ctx, &corev1.SecretList{})
	}
	if !apierrors.IsForbidden(err) {
		t.Errorf("as system:masters: %v, want refused", err)
	}
}
