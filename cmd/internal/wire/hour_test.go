package wire_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// TestMain lets the agent start this binary as the child that renders.
func TestMain(m *testing.M) {
	wire.Child()
	os.Exit(m.Run())
}

const atMost = time.Minute

// clock runs with the real one, ahead of it by what it was advanced.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// hour is two applications that have failed: "back" was reverted, "held" may not be.
type hour struct {
	*testing.T
	*world.World
	clock     *clock
	good, bad string // images
}

// TestNoPingPong: after a failure nothing more happens, for an hour on the agent's clock, with
// the real loops, API server and Git, though every loop is asked to look again each minute.
func TestNoPingPong(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it starts a cluster")
	}
	h := newHour(t)
	h.fail()
	before, generations, start := h.commits(), h.generations(), time.Now()
	const minutes = 60
	for minute := range minutes {
		h.clock.advance(time.Minute)
		h.lookAgain("minute-" + strconv.Itoa(minute))
	}
	if after := h.commits(); !slices.Equal(before, after) {
		t.Errorf("%d commits were made", len(after)-len(before))
	}
	if after := h.generations(); !slices.Equal(generations, after) {
		t.Errorf("generations of the workloads: %v, before %v", after, generations)
	}
	requests, err := h.Requests(start)
	h.must(err)
	writes := 0
	for _, r := range requests {
		// What remains are the notes that each look was handled.
		if strings.HasSuffix(r.Resource, "/status") || r.Verb == "get" || r.Verb == "list" || r.Resource == "events" {
			continue
		}
		writes++
		t.Errorf("the agent sent: %s", r)
	}
	h.atRest()
	t.Logf("%d minutes in %.1f s: %d requests, %d of them changed something", minutes, time.Since(start).Seconds(), len(requests), writes)
}

func newHour(t *testing.T) *hour {
	t.Helper()
	w, err := world.Start(t.Context(), world.Options{Dir: t.TempDir(), Node: cluster.NodeKwok, AuditLog: true, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	})
	h := &hour{T: t, World: w, clock: &clock{}}
	h.good, err = w.Sample(t.Context(), "1", "ready")
	h.must(err)
	h.bad, err = w.Sample(t.Context(), "2", "crash")
	h.must(err)
	files := []gitsource.Change{world.Write("slipway.yaml", "apiVersion: slipway.dev/v1alpha1\nkind: Delivery\nenvironments:\n"+
		"  - {name: production, path: \"apps/{app}/production\", promote: {by: commit}}\n")}
	for _, app := range apps() {
		files = append(files, world.Write("clusters/demo/"+app+".yaml", strings.ReplaceAll(application, "APP", app)),
			world.Write("apps/"+app+"/base/kustomization.yaml", "resources: [web.yaml]\n"),
			world.Write("apps/"+app+"/base/web.yaml", workload), use(app, h.good))
	}
	_, err = w.Commit(t.Context(), "Start", files...)
	h.must(err)
	h.must(w.Install(t.Context()))
	h.start()
	for _, app := range apps() {
		h.runs(app)
	}
	return h
}

func apps() []string { return []string{"back", "held"} }

// start runs the agent in this process, so that it has the test's clock.
func (h *hour) start() {
	h.Helper()
	kubeconfig, err := h.Cluster.UserKubeconfig(world.AgentUser)
	h.must(err)
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	h.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	agent, err := wire.NewAgent(ctx, wire.AgentOptions{
		Config: config, Cluster: world.ClusterName, Namespace: world.Namespace, CacheDir: filepath.Join(h.Dir, "agent"),
		Metrics: "0", Health: "0", Log: logr.Discard(), Now: h.clock.now,
	})
	if err != nil {
		cancel()
		h.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx) }()
	h.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			h.Errorf("agent: %v", err)
		}
	})
}

// fail brings in a bad version of both, and waits for the one revert.
func (h *hour) fail() {
	h.Helper()
	bad, err := h.Commit(h.Context(), "Bring in a bad version", use("back", h.bad))
	h.must(err)
	_, err = h.Commit(h.Context(), "Migrate\n\nSlipway-Irreversible: true\n", use("held", h.bad))
	h.must(err)
	h.must(world.Eventually(h.Context(), atMost, func() error {
		n, err := h.Count(h.Context(), 20, func(c gitsource.Commit) bool { return slices.Contains(trailer.Parse(c.Message).Reverts, bad) })
		if err == nil && n != 1 {
			err = fmt.Errorf("%d reverts", n)
		}
		return err
	}))
	h.runs("back")
	h.must(world.Eventually(h.Context(), atMost, func() error {
		return h.Condition(h.Context(), "held", v1alpha1.ConditionStalled, v1alpha1.ReasonMarked)
	}))
	h.atRest()
}

// atRest holds that the healthy version runs in both, and that only "held" has a mark.
func (h *hour) atRest() {
	h.Helper()
	h.runs("back")
	h.must(world.Eventually(h.Context(), atMost, func() error { return h.Deployment(h.Context(), "held", "web", h.good) }))
	for _, app := range apps() {
		state, err := h.Application(h.Context(), app)
		h.must(err)
		if marks := len(state.Status.Marks); marks == 1 != (app == "held") {
			h.Errorf("%s has %d marks", app, marks)
		}
	}
}

func (h *hour) runs(app string) {
	h.Helper()
	h.must(world.Eventually(h.Context(), atMost, func() error {
		return errors.Join(h.Ready(h.Context(), app, ""), h.Deployment(h.Context(), app, "web", h.good))
	}))
}

// lookAgain has every loop look again and waits until the Applications were handled.
func (h *hour) lookAgain(word string) {
	h.Helper()
	ctx := h.Context()
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, manifests.AnnotationReconcile, word))
	source := &v1alpha1.GitSource{}
	source.Namespace, source.Name = world.Namespace, "fleet"
	h.must(h.Kube.Patch(ctx, source, patch))
	for _, name := range apps() {
		rollout, app := &v1alpha1.Rollout{}, &v1alpha1.Application{}
		rollout.Namespace, rollout.Name = name, "web"
		app.Namespace, app.Name = world.Namespace, name
		h.must(errors.Join(h.Kube.Patch(ctx, rollout, patch), h.Kube.Patch(ctx, app, patch)))
	}
	h.must(world.Eventually(ctx, atMost, func() error {
		for _, name := range apps() {
			app, err := h.Application(ctx, name)
			if err != nil {
				return err
			}
			if app.Status.LastHandledReconcileAt != word {
				return fmt.Errorf("%s has not looked at %s yet", name, word)
			}
		}
		return nil
	}))
}

func (h *hour) commits() []gitsource.ObjectID {
	h.Helper()
	commits, err := h.World.Log(h.Context(), 100)
	h.must(err)
	var ids []gitsource.ObjectID
	for _, commit := range commits {
		ids = append(ids, commit.ID)
	}
	return ids
}

func (h *hour) generations() []int64 {
	h.Helper()
	var all []int64
	for _, app := range apps() {
		var deployment appsv1.Deployment
		h.must(h.Kube.Get(h.Context(), client.ObjectKey{Namespace: app, Name: "web"}, &deployment))
		all = append(all, deployment.Generation)
	}
	return all
}

func (h *hour) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// use is the change that puts an image into production of an app.
func use(app, image string) gitsource.Change {
	name, digest, _ := strings.Cut(image, "@")
	return world.Write("apps/"+app+"/production/kustomization.yaml",
		"namespace: "+app+"\nresources: [../base]\nimages:\n  - name: web\n    newName: "+name+"\n    digest: "+digest+"\n")
}

const application = `apiVersion: v1
kind: Namespace
metadata: {name: APP}
---
apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: APP, namespace: slipway-system}
spec:
  sourceRef: {name: fleet}
  path: apps/APP/production
  environment: production
`

const workload = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: web}]
---
apiVersion: slipway.dev/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  workloadRef: {name: web}
  strategy:
    rolling: {progressDeadline: 3s}
`
