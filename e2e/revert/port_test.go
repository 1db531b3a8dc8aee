package revert

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

const atMost = 2 * time.Minute

// port is one cluster and one environment repo that all stories share; each story has apps of its own.
type port struct {
	*world.World
	good, better, bad, worse string // images
}

func newPort(t *testing.T, apps ...string) *port {
	t.Helper()
	dir, err := os.MkdirTemp("", "slipway-revert-")
	if err != nil {
		t.Fatal(err)
	}
	w, err := world.Start(t.Context(), world.Options{Dir: dir, Node: cluster.NodeKwok, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	p := &port{World: w}
	for _, version := range []struct {
		into            *string
		name, behaviour string
	}{{&p.good, "1", "ready"}, {&p.better, "2", "ready"}, {&p.bad, "3", "never-ready"}, {&p.worse, "4", "crash"}} {
		if *version.into, err = w.Sample(t.Context(), version.name, version.behaviour); err != nil {
			t.Fatal(err)
		}
	}
	files := []gitsource.Change{world.Write("slipway.yaml", delivery), world.Write("README.md", "# Fleet\n")}
	for _, app := range apps {
		files = append(files, p.app(app, p.good)...)
	}
	if _, err := w.Commit(t.Context(), "Start", files...); err != nil {
		t.Fatal(err)
	}
	if err := w.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

const delivery = `apiVersion: slipway.dev/v1alpha1
kind: Delivery
environments:
  - {name: production, path: "apps/{app}/production", promote: {by: commit}}
`

// app returns the files of an app whose production runs an image.
func (p *port) app(name, image string) []gitsource.Change {
	return []gitsource.Change{
		world.Write("clusters/demo/"+name+".yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+name+"}\n---\n"+`apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: `+name+`, namespace: slipway-system}
spec:
  sourceRef: {name: fleet}
  path: apps/`+name+`/production
  environment: production
`),
		world.Write("apps/"+name+"/base/kustomization.yaml", "resources: [web.yaml]\n"),
		world.Write("apps/"+name+"/base/web.yaml", workload+rollout),
		p.use(name, image),
	}
}

// use is the change that puts an image into production of an app.
func (p *port) use(app, image string) gitsource.Change {
	name, digest, _ := strings.Cut(image, "@")
	return world.Write(kustomization(app), "namespace: "+app+"\nresources: [../base]\nimages:\n  - name: web\n    newName: "+name+"\n    digest: "+digest+"\n")
}

func kustomization(app string) string { return "apps/" + app + "/production/kustomization.yaml" }

const workload = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  progressDeadlineSeconds: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: web}]
`

const rollout = `---
apiVersion: slipway.dev/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  workloadRef: {name: web}
  strategy:
    rolling: {progressDeadline: 3s}
`

// story is one way of failing, told by a test.
type story struct {
	*testing.T
	*port
}

func (s story) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s story) commit(message string, changes ...gitsource.Change) gitsource.ObjectID {
	s.Helper()
	id, err := s.Commit(s.Context(), message, changes...)
	s.must(err)
	return id
}

// runs waits until an app runs an image in full, Ready and without a mark.
func (s story) runs(app, image string) {
	s.Helper()
	s.must(world.Eventually(s.Context(), atMost, func() error {
		state, err := s.Application(s.Context(), app)
		if err != nil {
			return err
		}
		status := state.Status
		if status.Applied == nil || status.Healthy == nil || status.Applied.SetDigest != status.Healthy.SetDigest || len(status.Marks) > 0 || status.RevertRequest != nil {
			return fmt.Errorf("%s is not at rest: applied %+v, healthy %+v, %d marks", app, status.Applied, status.Healthy, len(status.Marks))
		}
		return errors.Join(s.Deployment(s.Context(), app, "web", image), s.Ready(s.Context(), app, ""))
	}))
}

// asks waits until the workload of an app asks for an image, whatever becomes of it.
func (s story) asks(app, image string) {
	s.Helper()
	s.must(world.Eventually(s.Context(), atMost, func() error {
		var deployment appsv1.Deployment
		if err := s.Kube.Get(s.Context(), client.ObjectKey{Namespace: app, Name: "web"}, &deployment); err != nil {
			return err
		}
		if got := deployment.Spec.Template.Spec.Containers[0].Image; got != image {
			return fmt.Errorf("%s asks for %s, not for %s", app, got, image)
		}
		return nil
	}))
}

// reverts returns the commits of the branch that revert bad for an app.
func (s story) reverts(app string, bad gitsource.ObjectID) []gitsource.Commit {
	s.Helper()
	commits, err := s.World.Log(s.Context(), 1000)
	s.must(err)
	return slices.DeleteFunc(commits, func(c gitsource.Commit) bool {
		block := trailer.Parse(c.Message)
		return !slices.Contains(block.Reverts, bad) || !strings.HasPrefix(c.Message, "Revert "+app+" ")
	})
}

// comesBack waits until a bad commit was taken back for an app, once, with a Hold, and the app runs an image again.
func (s story) comesBack(app string, bad gitsource.ObjectID, held, image string) gitsource.Commit {
	s.Helper()
	s.must(world.Eventually(s.Context(), atMost, func() error {
		if len(s.reverts(app, bad)) == 0 {
			state, err := s.Application(s.Context(), app)
			return errors.Join(fmt.Errorf("%s is not reverted: %+v", app, state.Status.Conditions), err)
		}
		return nil
	}))
	s.runs(app, image)
	found := s.reverts(app, bad)
	if len(found) != 1 {
		s.Fatalf("%s was reverted by %d commits", app, len(found))
	}
	if trailer.Parse(found[0].Message).Verdict == "" {
		s.Errorf("the revert carries no verdict:\n%s", found[0].Message)
	}
	s.touchesOnly(app, found[0])
	content, err := s.File(s.Context(), kustomization(app))
	s.must(err)
	if want := string(s.use(app, image).Content); content != want {
		s.Errorf("%s in Git:\n%s\nwant\n%s", app, content, want)
	}
	if !s.held(app, held) {
		s.Errorf("%s is not held in %s", held, app)
	}
	return found[0]
}

// touchesOnly holds that a revert leaves the files of others alone.
func (s story) touchesOnly(app string, revert gitsource.Commit) {
	s.Helper()
	out, err := exec.CommandContext(s.Context(), "git", "--git-dir", s.GitDir(), "diff-tree", "-r", "--no-commit-id", "--name-only", string(revert.ID)).Output()
	s.must(err)
	for _, name := range strings.Fields(string(out)) {
		if !strings.HasPrefix(name, "apps/"+app+"/production/") && name != environment.HoldPath("production", app) {
			s.Errorf("the revert of %s changes %s", app, name)
		}
	}
}

func (s story) held(app, image string) bool {
	s.Helper()
	content, err := s.File(s.Context(), environment.HoldPath("production", app))
	if err != nil {
		return false
	}
	_, digest, _ := strings.Cut(image, "@")
	return strings.Contains(content, digest)
}

// stands waits until an Application says why it stands still, while an image runs.
func (s story) stands(app, reason, image string) string {
	s.Helper()
	var message string
	s.must(world.Eventually(s.Context(), atMost, func() error {
		state, err := s.Application(s.Context(), app)
		if err != nil {
			return err
		}
		ready := meta.FindStatusCondition(state.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != reason {
			return fmt.Errorf("%s: condition Ready is %+v, want %s", app, ready, reason)
		}
		message = ready.Message
		if image == "" {
			return nil
		}
		return s.Deployment(s.Context(), app, "web", image)
	}))
	return message
}

// sourceIs fails unless the GitSource says a reason.
func (s story) sourceIs(source *v1alpha1.GitSource, reason string) error {
	if err := s.Kube.Get(s.Context(), client.ObjectKey{Namespace: world.Namespace, Name: "fleet"}, source); err != nil {
		return err
	}
	ready := meta.FindStatusCondition(source.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Reason != reason {
		return fmt.Errorf("the source says %+v, want %s", ready, reason)
	}
	return nil
}

// images is what a promotion of the one image sets.
func images(reference string) []edit.Image {
	name, digest, _ := strings.Cut(reference, "@")
	return []edit.Image{{Name: name, Digest: digest}}
}
