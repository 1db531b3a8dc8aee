package apps

import (
	"fmt"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// An Application with an account of its own does what that one may do, its hooks too, and affects nobody else.
func TestServiceAccount(t *testing.T) {
	s := tell(t, "team", "  serviceAccountName: team\n  retryInterval: 1s\n")
	s.commit("A setting", s.set("one"))
	s.says(v1alpha1.ReasonStateUnknown, "ConfigMap team/settings", "system:serviceaccount:slipway-system:team", "forbidden")
	grant := func(name string, rules ...rbacv1.PolicyRule) {
		s.Helper()
		_, err := shared.clients.RbacV1().Roles(s.name).Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{})
		s.must(err)
		_, err = shared.clients.RbacV1().RoleBindings(s.name).Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "team", Namespace: world.Namespace}},
		}, metav1.CreateOptions{})
		s.must(err)
	}
	grant("settings", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "create", "patch"}})
	s.has("one")
	s.ready()

	// Another namespace, where it may do nothing.
	s.commit("Reach further", s.thing("loot", "here"))
	s.says(v1alpha1.ReasonStateUnknown, "ConfigMap shared/loot", "forbidden")
	s.commit("Do not", world.Remove("apps/team/loot.yaml"), s.set("two"))
	s.has("two")
	s.ready()

	// A hook is its account's, too.
	s.commit("A hook", s.set("three"), s.job("migrate", "slipway.dev/hook: pre-apply", ""))
	s.says(v1alpha1.ReasonStateUnknown, "batch/Job team/migrate", "forbidden")
	if got := s.setting(); got != "two" {
		t.Errorf("applied before the hook: %q", got)
	}
	grant("hooks", rbacv1.PolicyRule{APIGroups: []string{"batch"}, Resources: []string{"jobs"}, Verbs: []string{"get", "create", "patch", "delete"}})
	s.end("migrate", 0)
	s.has("three")
	s.ready()

	// It may not delete, so that nothing is pruned.
	s.commit("Without the setting", world.Remove("apps/team/settings.yaml"), world.Remove("apps/team/migrate.yaml"), s.file("calm.yaml", calm))
	s.says(v1alpha1.ReasonApplyFailed, "ConfigMap team/settings", "cannot delete")
	if got := s.setting(); got != "three" {
		t.Errorf("the setting is %q", got)
	}
	grant("prune", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"delete"}})
	s.eventually(func() error {
		if s.setting() != "" {
			return fmt.Errorf("the setting is there")
		}
		return nil
	})
	s.ready()
}

// What the agent sees by its own watches does not become an account's: an object of another Application is neither shown nor
// taken over by who may not, also when its owner lets it go.
func TestServiceAccountSeesNoFurther(t *testing.T) {
	rival := tell(t, "rival", "")
	rival.commit("A treasure", rival.thing("treasure", "doubloons"), rival.thing("keel", "here"))
	uid := rival.owned("treasure", "rival", "doubloons")
	rival.ready()
	thief := story{t, "thief"}
	thief.commit("Somebody wants it", application("thief", "  serviceAccountName: thief\n  retryInterval: 1s\n"), thief.thing("treasure", "stolen"))
	thief.says(v1alpha1.ReasonOwnedByAnother, "ConfigMap shared/treasure: belongs to Application rival")
	rival.commit("The owner lets go", world.Remove("apps/rival/treasure.yaml"), rival.thing("keel", "there"))
	rival.owned("keel", "rival", "there")
	thief.eventually(func() error {
		app, err := shared.Application(t.Context(), "thief")
		if err == nil && !strings.Contains(fmt.Sprint(app.Status.Conditions), "forbidden") {
			err = fmt.Errorf("%+v", app.Status.Conditions)
		}
		return err
	})
	if found, err := shared.clients.CoreV1().ConfigMaps("shared").Get(t.Context(), "treasure", metav1.GetOptions{}); err != nil || found.UID != uid || found.Data["value"] != "doubloons" {
		t.Errorf("%+v, %v", found.Data, err)
	}
	app, err := shared.Application(t.Context(), "thief")
	thief.must(err)
	if text := fmt.Sprintf("%+v", app.Status) + thief.events(); strings.Contains(text, "doubloons") {
		t.Errorf("it is told what it may not read: %s", text)
	}
	// The other goes away; what it could not take stays the owner's, and goes when nobody wants it.
	thief.commit("Nobody wants it", world.Remove("clusters/demo/thief.yaml"), world.Remove("apps/thief/treasure.yaml"))
	rival.ready()
}
