package apps

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Secret values pass by every place where somebody is told something, and show up in none: substituted into an object that is
// refused, edited by hand, refused again as an immutable one, written by a hook that fails, and used to reach a Git host.
func TestSecretsAreNowhere(t *testing.T) {
	values := map[string]string{
		"substituted": "swordfish-input-1", "in Git": "swordfish-in-git-2", "typed in by hand": "swordfish-by-hand-3", "of the Git host": "swordfish-login-4",
	}
	s := tell(t, "secretive", "  retryInterval: 1s\n  substitute: {from: [{kind: Secret, name: secretive-input}]}\n")
	secrets := shared.clients.CoreV1().Secrets(world.Namespace)
	for name, data := range map[string]map[string]string{
		"secretive-input": {"PASSWORD": values["substituted"]},
		"secretive-login": {"username": "git", "password": values["of the Git host"]},
	} {
		_, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}, metav1.CreateOptions{})
		s.must(err)
	}
	keys := func(kind, more string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\ntype: " + kind + "\nstringData: {input: \"${PASSWORD}\", git: " + values["in Git"] + more + "}\n"
	}
	login := "apiVersion: v1\nkind: Secret\nmetadata: {name: login}\nstringData: {input: \"${PASSWORD}\"}\n"
	s.commit("Keys", s.set("one"), s.file("keys.yaml", keys("example.com/keys", "")), s.file("login.yaml", login),
		world.Write("clusters/demo/secretive-source.yaml", `apiVersion: slipway.dev/v1alpha1
kind: GitSource
metadata: {name: secretive, namespace: slipway-system, annotations: {slipway.dev/prune: enabled}}
spec: {url: "http://127.0.0.1:9/nothing.git", branch: main, interval: 1s, secretRef: {name: secretive-login}}
`))
	s.has("one")
	s.ready()

	// Drift, told with what changed; and where the new value is what a person typed in.
	_, err := shared.clients.CoreV1().Secrets(s.name).Patch(t.Context(), "keys", types.MergePatchType,
		[]byte(`{"stringData":{"git":"`+values["typed in by hand"]+`"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	s.must(err)
	s.eventually(func() error {
		live, err := shared.clients.CoreV1().Secrets(s.name).Get(t.Context(), "keys", metav1.GetOptions{})
		if err == nil && (string(live.Data["git"]) != values["in Git"] || string(live.Data["input"]) != values["substituted"]) {
			err = os.ErrInvalid // without the values
		}
		return err
	})

	// Refusals of the API server, which quotes what it refuses: a type that may not change, and values that are none.
	s.commit("Another type", s.file("keys.yaml", keys("example.com/other", "")))
	s.says(v1alpha1.ReasonApplyFailed, "Secret secretive/keys", "type")
	s.commit("No data", s.file("keys.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\ntype: example.com/keys\ndata: {input: \"${PASSWORD}\", git: \""+values["in Git"]+"!\"}\n"))
	s.says(v1alpha1.ReasonApplyFailed, "Secret secretive/keys")
	s.commit("Not a map", s.file("keys.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\ntype: example.com/keys\nstringData: {input: {deep: \"${PASSWORD}\"}, git: "+values["in Git"]+"}\n"))
	s.eventually(func() error {
		if saying(t.Context(), s.name, v1alpha1.ReasonApplyFailed, "Secret secretive/keys") == nil {
			return nil
		}
		return saying(t.Context(), s.name, v1alpha1.ReasonRenderFailed)
	})
	// A hook that tells what it knows.
	s.commit("A hook", s.file("keys.yaml", keys("example.com/keys", "")), s.job("migrate", "slipway.dev/hook: pre-apply", ""))
	pod := s.pod("migrate")
	shared.kubelet.wrote(pod, "login as root:"+values["substituted"]+"\nthen "+base64.StdEncoding.EncodeToString([]byte(values["in Git"]))+" and "+values["in Git"]+"\n")
	s.end("migrate", 1)
	s.eventually(func() error {
		app, err := shared.Application(t.Context(), s.name)
		if err == nil && len(app.Status.Marks) == 0 {
			err = os.ErrNotExist
		}
		return err
	})

	for place, text := range s.told() {
		for what, value := range values {
			for _, form := range []string{value, base64.StdEncoding.EncodeToString([]byte(value))} {
				if at := strings.Index(text, form); at >= 0 {
					t.Errorf("the secret %s is told in %s: ...%s", what, place, text[max(0, at-200):at+len(form)])
				}
			}
		}
		if !strings.Contains(text, s.name) && place != "log" { // which speaks of what the agent could not tell otherwise
			t.Errorf("%s says nothing of the Application: the test looks at the wrong place", place)
		}
	}
	s.commit("Tidy up", world.Remove("clusters/demo/secretive-source.yaml"))
}

// told is all that people are told of the Application, by where.
func (s story) told() map[string]string {
	s.Helper()
	all := map[string]string{}
	for place, args := range map[string][]string{
		"events":      {"get", "events", "-A", "-o", "yaml"},
		"status":      {"get", "applications,gitsources,applicationsets,ocisources,chartsources", "-A", "-o", "yaml"},
		"inventories": {"get", "inventories", "-A", "-o", "yaml"},
	} {
		out, err := shared.Cluster.Kubectl(s.Context(), args...)
		s.must(err)
		all[place] = out
	}
	log, err := os.ReadFile(filepath.Join(shared.Dir, "logs", "slipway-agent.log"))
	s.must(err)
	all["log"] = string(log)
	audit, err := os.ReadFile(shared.Cluster.AuditLog()) // what was asked of whom, without bodies
	s.must(err)
	all["audit log"] = string(audit)
	return all
}
