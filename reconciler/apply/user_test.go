package apply_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/apply"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// may lets the ServiceAccount "team" do something with ConfigMaps of the namespace.
func (w *world) may(verbs ...string) {
	w.Helper()
	w.must(w.client.RbacV1().Roles(w.namespace).Create(w.ctx, &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "team"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: verbs}},
	}, metav1.CreateOptions{}))
	w.must(w.client.RbacV1().RoleBindings(w.namespace).Create(w.ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "team"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "team"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "team", Namespace: w.namespace}},
	}, metav1.CreateOptions{}))
}

// What an Application's account may not do is refused by the API server: to read, to write and to prune. Others are not
// affected, although all share one transport.
func TestActingAsAnAccount(t *testing.T) {
	t.Parallel()
	w, other := newWorldHere(t), newWorldHere(t)
	w.may("get", "patch", "create") // not delete
	agent := w.ctx
	team := apply.As(agent, "system:serviceaccount:"+w.namespace+":team")
	w.ctx = team
	w.applied(w.set("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: $NS}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: $NS}}"),
		"created ConfigMap a", "created ConfigMap b")

	// Not another kind, not another namespace: neither read nor written.
	for _, ref := range []manifests.Ref{w.ref("", "Secret", "s"), {Kind: "ConfigMap", Namespace: other.namespace, Name: "a"}} {
		live := w.applier.Observe(team, []manifests.Ref{ref})[ref]
		if live.State != plan.Unknown || !strings.Contains(live.Why, "Forbidden") || !strings.Contains(live.Why, "system:serviceaccount:"+w.namespace+":team") {
			t.Errorf("%s: %s (%s)", ref, live.State, live.Why)
		}
		object := w.objects("{apiVersion: v1, kind: " + ref.Kind + ", metadata: {name: " + ref.Name + ", namespace: " + ref.Namespace + "}}")[0]
		_, err := w.applier.Apply(team, plan.Plan{Stages: []plan.Stage{{Name: "wave 0", Actions: []plan.Action{{Verb: plan.Create, Ref: ref, Version: "v1", Object: object}}}}}, nil)
		if err == nil || !strings.Contains(err.Error(), "forbidden") || !strings.Contains(err.Error(), ref.String()) {
			t.Errorf("%s: %v", ref, err)
		}
		if _, err := w.applier.DryRun(team, object); err == nil || !strings.Contains(err.Error(), "forbidden") {
			t.Errorf("dry-run of %s: %v", ref, err)
		}
	}
	if _, err := w.client.CoreV1().ConfigMaps(other.namespace).Get(agent, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("it was written: %v", err)
	}

	// Not pruned; and once it may, it is.
	without := w.set("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: $NS}}")
	_, _, err := w.try(without)
	if err == nil || !strings.Contains(err.Error(), `cannot delete resource "configmaps"`) {
		t.Errorf("pruned by one who may not: %v", err)
	}
	if _, listed := w.owned[w.ref("", "ConfigMap", "b")]; !listed {
		t.Error("it left the Inventory")
	}
	w.ctx = agent
	w.must(w.client.RbacV1().Roles(w.namespace).Update(agent, &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "team"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"*"}}},
	}, metav1.UpdateOptions{}))
	w.ctx = team
	w.eventually("it is pruned", func() bool {
		_, _, err := w.try(without)
		return err == nil
	})

	// The same Applier goes on as the agent for everybody else.
	w.ctx = agent
	secret := w.ref("", "Secret", "s")
	if live := w.applier.Observe(agent, []manifests.Ref{secret})[secret]; live.State != plan.Absent {
		t.Errorf("as the agent: %s (%s)", live.State, live.Why)
	}
	w.must(w.client.CoreV1().Secrets(w.namespace).Create(agent, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{}))
}
