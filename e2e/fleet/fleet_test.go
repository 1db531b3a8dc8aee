package fleet

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
)

const (
	applications = 100
	namespace    = "fleet"
	settled      = 5 * time.Second // without a request: the agent has done what there was to do
)

// fleet is a hundred Applications under one agent.
type fleet struct {
	*testing.T
	*world.World
	ctx     context.Context //nolint:containedctx // that of the one test that all steps are part of
	agent   *world.Process
	metrics string // URL
}

func TestHundredApplications(t *testing.T) {
	dir, err := os.MkdirTemp("", "slipway-fleet-")
	if err != nil {
		t.Fatal(err)
	}
	w, err := world.Start(t.Context(), world.Options{Dir: dir, Node: cluster.NodeKwok, AuditLog: true, Log: t.Output()})
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
	f := &fleet{T: t, World: w, ctx: t.Context()}
	f.bootstrap()
	for _, step := range []struct {
		name string
		run  func(*fleet)
	}{
		{"a quiet minute", (*fleet).quietMinute},
		{"a commit that touches one of them", (*fleet).oneCommit},
		{"a restart and then a commit", (*fleet).restart},
		{"edits that are not ours", (*fleet).foreignEdits},
		{"hand edits of our fields", (*fleet).handEdits},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			step.run(&fleet{T: t, World: w, ctx: t.Context(), agent: f.agent, metrics: f.metrics})
		}) {
			return
		}
	}
}

func (f *fleet) bootstrap() {
	f.Helper()
	start := time.Now()
	files := []gitsource.Change{
		world.Write("README.md", "# Fleet\n"),
		world.Write("clusters/demo/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+namespace+"}\n"),
		world.Write("clusters/demo/scaled.yaml", application("scaled")),
		world.Write("apps/scaled/deployment.yaml", scaled),
	}
	for i := range applications {
		files = append(files, world.Write("clusters/demo/"+name(i)+".yaml", application(name(i))), world.Write("apps/"+name(i)+"/objects.yaml", world.FourObjects(name(i), 80)))
	}
	tip, err := f.Commit(f.ctx, "Start the fleet", files...)
	f.must(err)
	f.must(f.Install(f.ctx))
	f.startAgent()
	names := []string{world.ClusterName, "scaled"}
	for i := range applications {
		names = append(names, name(i))
	}
	f.must(f.WaitReady(f.ctx, 3*time.Minute, tip, names...))
	f.Logf("%d applications of 4 objects applied and healthy %.1f s after the commit", applications, time.Since(start).Seconds())
	f.settle()
}

func (f *fleet) startAgent() {
	f.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a free port
	f.must(err)
	address := listener.Addr().String()
	f.must(listener.Close())
	f.agent, err = f.StartAgent(f.ctx, world.AgentOptions{Args: []string{"--metrics-address", address}})
	f.must(err)
	f.metrics = "http://" + address + "/metrics"
}

func (f *fleet) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func name(i int) string { return fmt.Sprintf("app-%03d", i) }

func application(name string) string {
	return `apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: ` + name + `, namespace: slipway-system}
spec:
  sourceRef: {name: fleet}
  path: apps/` + name + `
  targetNamespace: ` + namespace + `
`
}

// scaled leaves replicas out of Git, as one does under an autoscaler.
const scaled = `apiVersion: apps/v1
kind: Deployment
metadata: {name: scaled}
spec:
  selector: {matchLabels: {app: scaled}}
  template:
    metadata: {labels: {app: scaled}}
    spec:
      containers: [{name: web, image: "registry.example/web:1"}]
`

// settle waits until the agent has sent nothing for a while.
func (f *fleet) settle() {
	f.Helper()
	f.must(world.Eventually(f.ctx, time.Minute, func() error {
		requests, err := f.Requests(time.Now().Add(-settled))
		if err == nil && len(requests) > 0 {
			err = fmt.Errorf("still at work: %s and %d more", requests[0], len(requests)-1)
		}
		return err
	}))
}

// since returns what was asked for since a time, once the agent has settled.
func (f *fleet) since(start time.Time) []world.Request {
	f.Helper()
	f.settle()
	requests, err := f.Requests(start)
	f.must(err)
	return requests
}

// rendered is how often the agent has rendered, answers from the memo left out.
func (f *fleet) rendered() int {
	f.Helper()
	request, err := http.NewRequestWithContext(f.ctx, http.MethodGet, f.metrics, nil)
	f.must(err)
	response, err := http.DefaultClient.Do(request)
	f.must(err)
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if value, found := strings.CutPrefix(lines.Text(), `slipway_render_total{result="rendered"} `); found {
			n, err := strconv.ParseFloat(value, 64)
			f.must(err)
			return int(n)
		}
	}
	return 0
}

func (f *fleet) quietMinute() {
	before, err := f.agent.Usage()
	f.must(err)
	start := time.Now()
	select {
	case <-time.After(time.Minute): // the thing that is measured
	case <-f.ctx.Done():
		f.Fatal(f.ctx.Err())
	}
	after, err := f.agent.Usage()
	f.must(err)
	requests, err := f.Requests(start)
	f.must(err)
	f.Logf("one quiet minute: %d requests, %.2f s of CPU, %d MiB resident with its render children", len(requests), (after.CPU - before.CPU).Seconds(), after.Memory>>20)
	for _, request := range requests {
		f.Errorf("asked for %s", request)
	}
}

// commit pushes and waits until the agent has seen it and is done.
func (f *fleet) commit(change gitsource.Change) (requests []world.Request, rendered int) {
	f.Helper()
	before, start := f.rendered(), time.Now()
	tip, err := f.Commit(f.ctx, "Change "+change.Path, change)
	f.must(err)
	f.must(f.WaitReady(f.ctx, time.Minute, tip, name(42)))
	return f.since(start), f.rendered() - before
}

// patches are the requests that changed objects of applications, Slipway's own bookkeeping left out.
func patches(requests []world.Request) []world.Request {
	var kept []world.Request
	for _, request := range requests {
		switch request.Verb {
		case "get", "list":
			continue
		}
		switch resource, _, _ := strings.Cut(request.Resource, "/"); resource {
		case "applications", "gitsources", "inventories", "events":
			continue
		}
		kept = append(kept, request)
	}
	return kept
}

func (f *fleet) oneCommit() { f.commits(81) }

func (f *fleet) commits(port int) {
	f.Helper()
	requests, rendered := f.commit(world.Write(filepath.Join("apps", name(42), "objects.yaml"), world.FourObjects(name(42), port)))
	changed := patches(requests)
	f.Logf("one Service changed: %d rendered, changed %v, %d requests in all: %v", rendered, changed, len(requests), requests)
	if rendered != 1 || len(changed) != 1 || changed[0].Verb != "patch" || changed[0].Resource != "services" {
		f.Errorf("want 1 render and the PATCH of one Service")
	}
	requests, rendered = f.commit(world.Write("README.md", fmt.Sprintf("# Fleet\n\n%d\n", port)))
	changed = patches(requests)
	f.Logf("README changed: %d rendered, changed %v, %d requests in all: %v", rendered, changed, len(requests), requests)
	if rendered != 0 || len(changed) != 0 {
		f.Errorf("want no render and no PATCH")
	}
}

func (f *fleet) restart() {
	f.agent.Kill()
	start := time.Now()
	f.startAgent()
	f.must(world.Eventually(f.ctx, time.Minute, func() error {
		requests, err := f.Requests(start)
		if err == nil && len(requests) == 0 {
			err = fmt.Errorf("the agent has not begun")
		}
		return err
	}))
	requests := f.since(start)
	byVerb := map[string]int{}
	for _, request := range requests {
		byVerb[request.Verb]++
	}
	f.Logf("restart: %v requests, %d rendered", byVerb, f.rendered())
	if changed := patches(requests); len(changed) != 0 || f.rendered() != 0 {
		f.Errorf("a restart changed %v and rendered %d times", changed, f.rendered())
	}
	f.commits(82)
}
