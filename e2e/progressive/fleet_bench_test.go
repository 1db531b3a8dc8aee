package progressive

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

var rollouts = flag.Int("rollouts", 1000, "how many are under way at once in BenchmarkFleet")

const anchorage = "fleet" // the namespace

// fleet is many Rollouts of one agent, each with an Application of its own. Pods are simulated.
type fleet struct {
	*testing.B
	*world.World
	agent    *world.Process
	n        int
	replicas int
	image    string
	steps    string
}

func newFleet(b *testing.B, n, replicas int) *fleet {
	b.Helper()
	dir, err := os.MkdirTemp("", "slipway-rollouts-")
	if err != nil {
		b.Fatal(err)
	}
	w, err := world.Start(b.Context(), world.Options{Dir: dir, Node: cluster.NodeKwok, Nodes: 1 + 2*n*replicas/800, AuditLog: true})
	if err != nil {
		b.Fatal(err)
	}
	f := &fleet{B: b, World: w, n: n, replicas: replicas}
	b.Cleanup(func() {
		if err := w.Stop(); err != nil {
			b.Error(err)
		}
		if !b.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	f.image, err = w.Sample(b.Context(), "1", "ready")
	f.must(err)
	_, err = f.Commit(b.Context(), "Start", world.Write("clusters/demo/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+anchorage+"}\n"))
	f.must(err)
	f.must(f.Install(b.Context()))
	f.agent, err = f.StartAgent(b.Context(), world.AgentOptions{})
	f.must(err)
	return f
}

func (f *fleet) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// asks is what the agent did during something.
type asks struct {
	took     time.Duration
	requests int
	cpu      time.Duration
	memory   int64
}

func (a asks) String() string {
	return fmt.Sprintf("%.1f s, %d requests, %.2f s of CPU, %d MiB", a.took.Seconds(), a.requests, a.cpu.Seconds(), a.memory>>20)
}

// during measures the agent while do.
func (f *fleet) during(what string, do func()) asks {
	f.Helper()
	before, err := f.agent.Usage()
	f.must(err)
	start := time.Now()
	do()
	end := time.Now()
	after, err := f.agent.Usage()
	f.must(err)
	all, err := f.Requests(start)
	f.must(err)
	all = slices.DeleteFunc(all, func(r world.Request) bool { return r.At.After(end) })
	kinds := map[string]int{}
	for _, r := range all {
		kinds[r.Verb+" "+r.Resource]++
	}
	seen := asks{took: end.Sub(start), requests: len(all), cpu: after.CPU - before.CPU, memory: after.Memory}
	f.B.Logf("%s: %s: %v", what, seen, kinds)
	return seen
}

func (f *fleet) name(i int) string { return fmt.Sprintf("web-%04d", i) }

// version is the commit that brings a version of all apps in.
func (f *fleet) version(version int) {
	f.Helper()
	var changes []gitsource.Change
	for i := range f.n {
		name := f.name(i)
		changes = append(changes,
			world.Write("clusters/demo/"+name+".yaml", "apiVersion: slipway.dev/v1alpha1\nkind: Application\nmetadata: {name: "+name+", namespace: slipway-system}\nspec:\n  sourceRef: {name: fleet}\n  path: apps/"+name+"\n  targetNamespace: "+anchorage+"\n"),
			world.Write("apps/"+name+"/web.yaml", strings.NewReplacer("NAME", name, "IMAGE", f.image, "REPLICAS", fmt.Sprint(f.replicas), "VERSION", fmt.Sprint(version), "STEPS", f.steps).Replace(`apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec: {containers: [{name: web, image: "IMAGE", env: [{name: RELEASE, value: "VERSION"}]}]}
---
apiVersion: slipway.dev/v1alpha1
kind: Rollout
metadata: {name: NAME}
spec:
  workloadRef: {name: NAME}
  strategy: {canary: {progressDeadline: 30m, steps: [STEPS]}}
`)))
	}
	_, err := f.Commit(f.Context(), fmt.Sprintf("Version %d", version), changes...)
	f.must(err)
}

// all watches until all Rollouts are as wanted.
func (f *fleet) all(wanted func(*v1alpha1.Rollout) bool) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 20*time.Minute)
	defer cancel()
	watch, err := f.Kube.Watch(ctx, &v1alpha1.RolloutList{}, client.InNamespace(anchorage))
	f.must(err)
	defer watch.Stop()
	there := map[string]bool{}
	for len(there) < f.n {
		event, on := <-watch.ResultChan()
		rollout, is := event.Object.(*v1alpha1.Rollout)
		if !on || !is {
			f.Fatalf("%d of %d Rollouts were as wanted when the watch ended: %v", len(there), f.n, ctx.Err())
		}
		if wanted(rollout) {
			there[rollout.Name] = true
		} else {
			delete(there, rollout.Name)
		}
	}
}

// done is true once a Rollout is settled on a bundle that is none of before.
func done(before map[string]string) func(*v1alpha1.Rollout) bool {
	return func(r *v1alpha1.Rollout) bool {
		s := r.Status
		return s.Phase == v1alpha1.PhaseHealthy && s.Stable != nil && s.Stable.Digest != before[r.Name] && !strings.Contains(s.AppliedBundle, " ")
	}
}

// stable is what all Rollouts are on, by name.
func (f *fleet) stable() map[string]string {
	f.Helper()
	var list v1alpha1.RolloutList
	f.must(f.Kube.List(f.Context(), &list, client.InNamespace(anchorage)))
	all := map[string]string{}
	for _, r := range list.Items {
		all[r.Name] = r.Status.Stable.Digest
	}
	return all
}

// quiet waits for a time in which nothing is to happen.
func (f *fleet) quiet(d time.Duration) {
	select {
	case <-time.After(d):
	case <-f.Context().Done():
	}
}

// approve says yes to the step that all Rollouts wait at, as `slipway rollout promote` does.
func (f *fleet) approve() {
	f.Helper()
	var list v1alpha1.RolloutList
	f.must(f.Kube.List(f.Context(), &list, client.InNamespace(anchorage)))
	for i := range list.Items {
		r := &list.Items[i]
		yes, err := json.Marshal(v1alpha1.StepApproval{
			Bundle: r.Status.Target.Digest, Step: int(r.Status.Course.Step), Answers: r.Status.Course.Since.Time, At: time.Now(), By: "robin",
		})
		f.must(err)
		base := r.DeepCopy()
		if r.Annotations == nil {
			r.Annotations = map[string]string{}
		}
		r.Annotations[manifests.AnnotationApproved] = string(yes)
		f.must(f.Kube.Patch(f.Context(), r, client.MergeFrom(base)))
	}
}

// BenchmarkFleet has many Rollouts under way at once: what they cost while they go on, and while they wait.
func BenchmarkFleet(b *testing.B) {
	for b.Loop() {
		f := newFleet(b, *rollouts, 1)
		f.steps = "{weight: 50}, {pause: {}}"
		none := map[string]string{}
		first := f.during("first versions", func() { f.version(1); f.all(done(none)) })
		f.quiet(10 * time.Second)
		idle := f.during("at rest", func() { f.quiet(time.Minute) })
		before := f.stable()
		waits := func(r *v1alpha1.Rollout) bool {
			return r.Status.Course != nil && r.Status.Course.Canary != nil && r.Status.Course.Step == 1
		}
		canaries := f.during("until all wait", func() { f.version(2); f.all(waits) })
		f.quiet(20 * time.Second)
		paused := f.during("waiting", func() { f.quiet(time.Minute) })
		end := f.during("from the approval to the end", func() { f.approve(); f.all(done(before)) })
		each := func(a asks) string { return fmt.Sprintf("%s: %.1f requests each", a, float64(a.requests)/float64(f.n)) }
		table(b, fmt.Sprintf("%d Rollouts", f.n), []row{
			{"first version, from the commit until all are Healthy", each(first), ""},
			{"one minute at rest", idle.String(), "0 requests"},
			{"the next version, from the commit until all canaries wait at step 2", each(canaries), ""},
			{"one minute of waiting", paused.String(), "0 requests"},
			{"from the first approval until all are Healthy", each(end), ""},
		})
	}
}

// BenchmarkSteps has some Rollouts with more and more steps: requests are to grow with the steps, not with the time.
func BenchmarkSteps(b *testing.B) {
	for b.Loop() {
		f := newFleet(b, 10, 10)
		var rows []row
		before := map[string]string{}
		for version, of := range []struct{ steps, pause int }{{0, 1}, {1, 1}, {3, 1}, {6, 1}, {9, 1}, {6, 10}} {
			var steps []string
			for i := range of.steps {
				steps = append(steps, fmt.Sprintf("{weight: %d}, {pause: {for: %ds}}", 10*(i+1), of.pause))
			}
			f.steps = strings.Join(append(steps, "{weight: 100}"), ", ")
			what := fmt.Sprintf("%d weights, %d s each, and 100%%", of.steps, of.pause)
			seen := f.during(what, func() { f.version(version); f.all(done(before)) })
			if version > 0 { // the first came in without steps
				rows = append(rows, row{what, fmt.Sprintf("%s: %.1f requests each", seen, float64(seen.requests)/float64(f.n)), ""})
			}
			before = f.stable()
		}
		table(b, "10 Rollouts of 10 replicas", rows)
	}
}
