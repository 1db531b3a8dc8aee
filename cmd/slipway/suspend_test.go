package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {level: info}\n"

// While it is suspended an Application is left alone; then what was typed in is put back.
func TestSuspendAndResume(t *testing.T) {
	d := newDeck(t)
	d.application("suspended", "", map[string]string{"production/settings.yaml": settings})
	d.says(d.slipway(exitDone, "suspend", "suspended", "--reason", "INC-42: by hand", "--for", "10m"), "is suspended until", "slipway resume suspended")
	d.eventually(func() error {
		return d.Condition(d.Context(), "suspended", v1alpha1.ConditionReady, v1alpha1.ReasonPaused)
	})
	d.says(d.slipway(exitNo, "status", "suspended", "--check"), "INC-42: by hand", "Paused")

	var live corev1.ConfigMap
	d.get("suspended", "settings", &live)
	live.Data["level"] = "debug"
	d.must(d.Kube.Update(d.Context(), &live))
	// Asked to look, the agent says that it looked, and keeps its hands off.
	var answers []reconciled
	d.read(exitNo, &answers, "reconcile", "suspended", "--wait")
	if len(answers) != 1 || !answers[0].Handled || answers[0].Ready || answers[0].State != v1alpha1.ReasonPaused {
		t.Errorf("answers: %+v", answers)
	}
	if d.get("suspended", "settings", &live); live.Data["level"] != "debug" {
		t.Errorf("a suspended Application was healed: %v", live.Data)
	}

	var end suspended
	d.read(exitDone, &end, "resume", "suspended")
	if end.Suspended || end.Application != "suspended" {
		t.Errorf("resumed: %+v", end)
	}
	d.eventually(func() error {
		if d.get("suspended", "settings", &live); live.Data["level"] != "info" {
			return fmt.Errorf("not put back: %v", live.Data)
		}
		return nil
	})
	d.says(d.slipway(exitDone, "resume", "suspended"), "was not suspended")

	var events corev1.EventList
	d.must(d.Kube.List(d.Context(), &events, client.InNamespace(world.Namespace)))
	told := map[string]string{}
	for _, event := range events.Items {
		if event.InvolvedObject.Name == "suspended" {
			told[event.Reason] = event.Message
		}
	}
	d.says(told["Suspended"], "INC-42: by hand", "(admin)")
	d.says(told["Resumed"], "resumed by")
}

func TestSuspendEndsByItself(t *testing.T) {
	d := newDeck(t)
	d.application("expiring", "", map[string]string{"production/settings.yaml": settings})
	d.slipway(exitDone, "suspend", "expiring", "--reason", "a moment", "--for", "2s")
	d.must(d.WaitReady(d.Context(), atMost, "", "expiring"))
}

func TestResumeWhatGitSuspends(t *testing.T) {
	d := newDeck(t)
	d.application("stopped", "", map[string]string{"production/settings.yaml": settings})
	text, err := d.File(d.Context(), "clusters/demo/stopped.yaml")
	d.must(err)
	_, err = d.Commit(d.Context(), "Stop", world.Write("clusters/demo/stopped.yaml", strings.TrimSpace(text)+"\n  suspend: true\n"))
	d.must(err)
	d.eventually(func() error {
		return d.Condition(d.Context(), "stopped", v1alpha1.ConditionReady, v1alpha1.ReasonSuspended)
	})
	d.says(d.slipway(exitFailed, "resume", "stopped"), "spec.suspend")
	d.says(d.slipway(exitFailed, "suspend", "nothing-there", "--reason", "x"), "nothing-there", "slipway status")
}

// What was pushed is applied when reconcile has waited for it, and what cannot be is said.
func TestReconcile(t *testing.T) {
	d := newDeck(t)
	d.application("looked-at", "", map[string]string{"production/settings.yaml": settings})
	commit, err := d.Commit(d.Context(), "Say more", world.Write("apps/looked-at/production/settings.yaml", strings.Replace(settings, "info", "debug", 1)))
	d.must(err)
	var answers []reconciled
	d.read(exitDone, &answers, "reconcile", "looked-at", "--source", "--wait")
	if len(answers) != 2 || answers[0].Kind != "GitSource" || !strings.HasSuffix(answers[0].Revision, string(commit)) {
		t.Fatalf("answers: %+v", answers)
	}
	for _, a := range answers {
		if !a.Handled || !a.Ready {
			t.Errorf("%s %s: %+v", a.Kind, a.Name, a)
		}
	}
	var live corev1.ConfigMap
	if d.get("looked-at", "settings", &live); live.Data["level"] != "debug" {
		t.Errorf("after the wait it stands: %v", live.Data)
	}

	_, err = d.Commit(d.Context(), "Break it", world.Write("apps/looked-at/production/settings.yaml", "kind: ["))
	d.must(err)
	d.says(d.slipway(exitNo, "reconcile", "looked-at", "--source", "--wait"), "gitsource fleet: ready", "not ready: RenderFailed", "settings.yaml:1")
	_, err = d.Commit(d.Context(), "Mend it", world.Write("apps/looked-at/production/settings.yaml", settings))
	d.must(err)
	d.says(d.slipway(exitDone, "reconcile", "looked-at"), "the agent was asked to look")
	d.says(d.slipway(exitDone, "reconcile", "--source"), "gitsource fleet")
	d.says(d.slipway(exitUsage, "reconcile"), "--source")
}

// An interrupted wait says that what was asked for stands, and ends at once.
func TestReconcileInterrupted(t *testing.T) {
	d := newDeck(t)
	d.push("interrupted", "", map[string]string{"production/web.yaml": nowhere})
	d.eventually(func() error {
		return d.Condition(d.Context(), "interrupted", v1alpha1.ConditionReady, v1alpha1.ReasonProgressing)
	})
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	g := &globals{out: io.Discard, env: func(key string) string { return d.env[key] }}
	var said error
	code := make(chan int)
	go func() {
		code <- execute(ctx, g, []string{"reconcile", "interrupted", "--wait", "--kubeconfig", d.Cluster.Kubeconfig()}, func(err error) { said = err })
	}()
	d.eventually(func() error {
		app, err := d.Application(d.Context(), "interrupted")
		if err == nil && app.Status.LastHandledReconcileAt == "" {
			err = errors.New("not looked at yet")
		}
		return err
	})
	interrupt()
	if got := <-code; got != exitFailed || said == nil || !strings.Contains(said.Error(), "stands") {
		t.Errorf("exit code %d: %v", got, said)
	}
	d.says(d.slipway(exitNo, "reconcile", "interrupted", "--wait", "--timeout", "1s"), "Progressing", "Deployment interrupted/web")
}

// nowhere is a Deployment whose pods no node takes.
const nowhere = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {nobody: here}
      containers: [{name: web, image: example.com/web}]
`
