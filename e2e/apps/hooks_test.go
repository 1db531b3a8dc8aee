package apps

import (
	"fmt"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// job is a file with a Job; annotations are the inside of a map, more are lines of its spec.
func (s story) job(name, annotations, more string) gitsource.Change {
	return s.file(name+".yaml", fmt.Sprintf(`apiVersion: batch/v1
kind: Job
metadata: {name: %s, annotations: {%s}}
spec:
  backoffLimit: 0
%s  template:
    spec:
      nodeName: %s
      restartPolicy: Never
      containers:
        - name: main
          image: migrate
          envFrom: [{secretRef: {name: login, optional: true}}]
`, name, annotations, more, node))
}

func (s story) uid(job string) types.UID {
	s.Helper()
	found, err := shared.clients.BatchV1().Jobs(s.name).Get(s.Context(), job, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ""
	}
	s.must(err)
	return found.UID
}

// gone waits until there is no such Job.
func (s story) gone(job string) {
	s.Helper()
	s.eventually(func() error {
		if s.uid(job) != "" {
			return fmt.Errorf("Job %s is there", job)
		}
		return nil
	})
}

// A pre-apply hook runs before the rest, once for a Set; the post-apply hook decides whether it is healthy.
func TestHooksInOrder(t *testing.T) {
	s := tell(t, "order", "")
	s.commit("First version", s.set("one"),
		s.job("migrate", "slipway.dev/hook: pre-apply", "  ttlSecondsAfterFinished: 0\n"),
		s.job("check", "slipway.dev/hook: post-apply", ""))
	s.says(v1alpha1.ReasonProgressing, "waiting for the pre-apply hook batch/Job order/migrate")
	if s.setting() != "" || s.uid("check") != "" {
		t.Fatal("something else was applied before the pre-apply hook had ended")
	}
	s.end("migrate", 0)
	s.has("one")
	s.gone("migrate") // its time has come, but only after its end was on record
	s.says(v1alpha1.ReasonProgressing, "waiting for the post-apply hook batch/Job order/check")
	s.end("check", 0)
	s.ready()
	check := s.uid("check")

	// A commit that changes nothing of this Set runs nothing again, nor does drift, nor the removal by the Job's own time.
	s.commit("Write a note", world.Write("notes/order.md", "hello"))
	s.must(shared.clients.CoreV1().ConfigMaps(s.name).Delete(s.Context(), "settings", metav1.DeleteOptions{}))
	s.has("one")
	s.ready()
	if s.uid("migrate") != "" || s.uid("check") != check {
		t.Error("a hook ran again for the same Set")
	}

	// Another Set runs its hooks again, under the same names, although the Jobs are the same.
	s.commit("Second version", s.set("two"))
	s.end("migrate", 0)
	s.has("two")
	s.end("check", 0)
	s.ready()
	if s.uid("check") == check {
		t.Error("the hook did not run for the second Set")
	}
	app, err := shared.Application(t.Context(), s.name)
	s.must(err)
	if len(app.Status.Hooks) != 4 {
		t.Errorf("on record: %+v", app.Status.Hooks)
	}

	// Back to a Set that was healthy: its hooks have run.
	s.commit("First version again", s.set("one"))
	s.has("one")
	s.ready()
	if app, err = shared.Application(t.Context(), s.name); err != nil || len(app.Status.Hooks) != 4 {
		t.Errorf("%v: hooks ran for a Set that had them: %+v", err, app.Status.Hooks)
	}

	// Out of Git, out of the cluster.
	s.commit("No hooks", world.Remove("apps/order/check.yaml"), world.Remove("apps/order/migrate.yaml"))
	s.gone("check")
	s.ready()
}

// A pre-apply hook that fails stops the apply at once and says why; the revert of it runs no hook.
func TestHookFails(t *testing.T) {
	s := tell(t, "failing", "  environment: production\n")
	secret := s.file("login.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: login}\nstringData: {password: swordfish-42}\n")
	s.commit("Good version", s.set("good"), secret)
	s.ready()
	bad := s.commit("Bad version", s.set("bad"),
		s.job("migrate", "slipway.dev/hook: pre-apply", ""),
		s.job("clean-up", "slipway.dev/hook: on-failure", ""))
	pod := s.pod("migrate")
	shared.kubelet.wrote(pod, "connecting as root:swordfish-42\nERROR: column exists\n")
	s.end("migrate", 1)
	s.end("clean-up", 0) // it is started when the Set has failed
	s.eventually(func() error {
		app, err := shared.Application(t.Context(), s.name)
		if err != nil {
			return err
		}
		if app.Status.LastRevert == nil || app.Status.LastRevert.Commit == "" || app.Status.LastRevert.FailedSet == "" {
			return fmt.Errorf("no revert: %+v", app.Status.LastRevert)
		}
		return nil
	})
	s.ready()
	if got := s.setting(); got != "good" {
		t.Errorf("the setting is %q", got)
	}
	commits, err := shared.Log(t.Context(), 20)
	s.must(err)
	message := ""
	for _, commit := range commits {
		if strings.Contains(commit.Message, string(bad)) {
			message = commit.Message
		}
	}
	for _, text := range []string{message, s.events()} {
		if !strings.Contains(text, "pre-apply hook failed") || !strings.Contains(text, "ERROR: column exists") || !strings.Contains(text, "root:[secret]") {
			t.Errorf("it does not say how the hook failed:\n%s", text)
		}
		if strings.Contains(text, "swordfish-42") {
			t.Errorf("it tells a secret:\n%s", text)
		}
	}
	s.eventually(func() error {
		app, err := shared.Application(t.Context(), s.name)
		if err == nil && (len(app.Status.Hooks) != 1 || app.Status.Hooks[0].Outcome != v1alpha1.HookSucceeded) {
			err = fmt.Errorf("on record: %+v", app.Status.Hooks)
		}
		return err
	})
	s.gone("clean-up") // it left Git with the failed version, and was let finish

	// Who brings the failed version back wants it tried again.
	s.commit("Bad version again", s.set("bad"), s.job("migrate", "slipway.dev/hook: pre-apply", ""),
		s.job("clean-up", "slipway.dev/hook: on-failure", ""))
	s.end("migrate", 0)
	s.has("bad")
	s.ready()
}

// What cannot be a hook is told before anything is applied; the name of somebody's Job is not taken.
func TestHooksThatCannotBe(t *testing.T) {
	s := tell(t, "nohook", "")
	s.commit("Another tool's word", s.job("migrate", "slipway.dev/hook: PreSync", ""))
	s.says(v1alpha1.ReasonRenderFailed, "batch/Job nohook/migrate", `"PreSync" is not one of pre-apply`)
	s.eventually(func() error {
		_, err := shared.clients.CoreV1().Namespaces().Get(t.Context(), s.name, metav1.GetOptions{})
		return err
	})
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "migrate"}}
	job.Spec.Template.Spec.RestartPolicy = "Never"
	job.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Image: "migrate"}}
	_, err := shared.clients.BatchV1().Jobs(s.name).Create(t.Context(), job, metav1.CreateOptions{})
	s.must(err)
	uid, background := s.uid("migrate"), metav1.DeletePropagationBackground
	s.commit("A taken name", s.set("one"), s.job("migrate", "slipway.dev/hook: pre-apply", ""))
	s.says(v1alpha1.ReasonRenderFailed, "batch/Job nohook/migrate: the name of a hook is taken")
	if s.uid("migrate") != uid || s.setting() != "" {
		t.Error("somebody's Job was replaced, or the rest applied")
	}
	s.must(shared.clients.BatchV1().Jobs(s.name).Delete(t.Context(), "migrate", metav1.DeleteOptions{PropagationPolicy: &background}))
	s.commit("Try again", s.file("note.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note}\n"))
	s.end("migrate", 0)
	s.ready()
}

// A Job that is no hook and that its time removes after it completed is not created again, also when nobody watched it end.
func TestJobWithTTL(t *testing.T) {
	s := tell(t, "expires", "")
	s.commit("A Job", s.set("one"), s.job("load", "a: b", "  ttlSecondsAfterFinished: 1\n"))
	s.says(v1alpha1.ReasonProgressing, "has not ended")
	s.end("load", 0)
	s.gone("load")
	s.ready()
	s.commit("Another setting", s.set("two"))
	s.has("two")
	s.ready()
	if s.uid("load") != "" {
		t.Error("the Job was created again")
	}
	s.commit("Another Job", s.job("load", "a: c", "  ttlSecondsAfterFinished: 1\n"))
	s.end("load", 0)
	s.ready()
}
