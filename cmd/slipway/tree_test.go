package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-cd/slipway/cmd/internal/owned"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const workload = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: example.com/web}]
`

const token = "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {key: correct-horse}\n"

// below finds a child by the beginning of its name.
func below(node *owned.Node, kind, name string) *owned.Node {
	for _, child := range node.Children {
		if child.Kind == kind && strings.HasPrefix(child.Name, name) {
			return child
		}
	}
	return &owned.Node{}
}

func TestTree(t *testing.T) {
	d := newDeck(t)
	d.application("treed", "", map[string]string{"production/web.yaml": workload, "production/token.yaml": token, "production/settings.yaml": settings})
	var roots []*owned.Node
	d.eventually(func() error {
		d.read(exitDone, &roots, "tree", "treed")
		if set := below(below(roots[0], "Deployment", "web"), "ReplicaSet", "web-"); set.Health != owned.Healthy || len(set.Children) != 2 {
			return fmt.Errorf("replicas: %+v", set)
		}
		return nil
	})
	app := roots[0]
	if len(roots) != 1 || app.Kind != "Application" || app.Health != owned.Healthy || app.Revision == "" || len(app.Children) != 3 {
		t.Errorf("Application: %+v", app)
	}
	for _, node := range []*owned.Node{below(app, "Secret", "token"), below(app, "ConfigMap", "settings"), below(app, "Deployment", "web")} {
		if node.Health != owned.Healthy || node.Created == nil || node.Namespace != "treed" {
			t.Errorf("%+v", node)
		}
	}
	d.says(d.slipway(exitDone, "tree", "treed"), "Application treed @ ", "├─ ConfigMap treed/settings", "└─ Deployment treed/web", "   └─ ReplicaSet web-", "      ├─ Pod web-")

	// Without a name the Applications stand below the one that owns them.
	d.read(exitDone, &roots, "tree")
	if len(roots) != 1 || below(below(roots[0], "Application", "treed"), "Deployment", "web").Kind == "" {
		t.Errorf("the tree of all has %d roots", len(roots))
	}
	d.says(d.slipway(exitFailed, "tree", "nothing-there"), "nothing-there")
}

// What is not healthy says why, and what is gone is missing.
func TestTreeOfTheUnwell(t *testing.T) {
	d := newDeck(t)
	d.push("unwell", "", map[string]string{"production/web.yaml": nowhere, "production/settings.yaml": settings})
	var roots []*owned.Node
	d.eventually(func() error {
		return d.Condition(d.Context(), "unwell", v1alpha1.ConditionReady, v1alpha1.ReasonProgressing)
	})
	d.eventually(func() error {
		d.read(exitDone, &roots, "tree", "unwell")
		if pod := below(below(below(roots[0], "Deployment", "web"), "ReplicaSet", "web-"), "Pod", "web-"); pod.Health != owned.Progressing {
			return fmt.Errorf("pod: %+v", pod)
		}
		return nil
	})
	if web := below(roots[0], "Deployment", "web"); web.Health != owned.Progressing || web.Message == "" {
		t.Errorf("Deployment: %+v", web)
	}
	if roots[0].Health != owned.Progressing {
		t.Errorf("Application: %+v", roots[0])
	}
	d.slipway(exitDone, "suspend", "unwell", "--reason", "to look at what is gone")
	d.eventually(func() error {
		d.read(exitDone, &roots, "tree", "unwell")
		if roots[0].Health != owned.Suspended {
			return fmt.Errorf("Application: %+v", roots[0])
		}
		return nil
	})
	var live corev1.ConfigMap
	d.get("unwell", "settings", &live)
	d.must(d.Kube.Delete(d.Context(), &live))
	d.read(exitDone, &roots, "tree", "unwell")
	if gone := below(roots[0], "ConfigMap", "settings"); gone.Health != owned.Missing {
		t.Errorf("a deleted object: %+v", gone)
	}
}

func TestTreeOutput(t *testing.T) {
	now := time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
	at := func(ago time.Duration) *time.Time { then := now.Add(-ago); return &then }
	pod := &owned.Node{
		Kind: "Pod", Namespace: "shop", Name: "web-5d4f7c8b9-x2x7k", Health: owned.Failed, Created: at(3 * time.Minute),
		Message: "web: CrashLoopBackOff: back-off 2m40s restarting failed container; started again 5 times",
	}
	set := &owned.Node{
		Kind: "ReplicaSet", Namespace: "shop", Name: "web-5d4f7c8b9", Health: owned.Progressing, Created: at(3 * time.Minute),
		Message: "0 of 1 pods ready", Children: []*owned.Node{pod},
	}
	long := &owned.Node{Kind: "ConfigMap", Namespace: "shop", Name: "a-name-that-is-as-long-as-kubernetes-lets-it-be-and-not-a-bit-shorter", Health: owned.Healthy, Created: at(48 * time.Hour)}
	gone := &owned.Node{Kind: "ClusterRole", Name: "shop", Health: owned.Missing, Message: "it is not in the cluster"}
	roots := []*owned.Node{{
		Kind: "Application", Name: "shop-production", Health: owned.Progressing, Created: at(400 * 24 * time.Hour), Message: "Progressing: waiting: apps/Deployment shop/web",
		Revision: "refs/heads/main@sha1:0123456789abcdef0123456789abcdef01234567",
		Children: []*owned.Node{gone, long, {Kind: "Deployment", Namespace: "shop", Name: "web", Health: owned.Healthy, Created: at(48 * time.Hour), Children: []*owned.Node{set}}},
	}}
	var narrow, wide, coloured bytes.Buffer
	printTrees(&narrow, terminal{width: 80}, roots, now)
	printTrees(&wide, terminal{}, roots, now)
	printTrees(&coloured, terminal{width: 80, colours: true}, roots, now)
	golden(t, "output/tree.human", narrow.String())
	golden(t, "output/tree.wide", wide.String())
	for line := range strings.Lines(narrow.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d characters: %s", n, line)
		}
	}
	if !strings.Contains(coloured.String(), "\x1b[31m") || strings.Contains(narrow.String(), "\x1b") {
		t.Error("colours are not where they belong")
	}
	printed(t, "tree", "json", func(g *globals) error { return g.print(roots, func(io.Writer) {}) })
}

func TestEvents(t *testing.T) {
	d := newDeck(t)
	d.application("eventful", "", map[string]string{"production/web.yaml": workload})
	d.slipway(exitDone, "suspend", "eventful", "--reason", "to be heard")
	var events []owned.Event
	d.eventually(func() error {
		d.read(exitDone, &events, "events", "eventful")
		kinds := map[string]bool{}
		for _, event := range events {
			kinds[event.Kind+" "+event.Reason] = true
		}
		for _, want := range []string{"Application Applied", "Application Suspended", "Deployment ScalingReplicaSet", "ReplicaSet SuccessfulCreate", "Pod Scheduled"} {
			if !kinds[want] {
				return fmt.Errorf("no event %s among %v", want, kinds)
			}
		}
		return nil
	})
	for i, event := range events {
		if event.Application != "eventful" {
			t.Errorf("an event of %s: %+v", event.Application, event)
		}
		if i > 0 && event.At.Before(events[i-1].At) {
			t.Errorf("%s is told after %s", event.At, events[i-1].At)
		}
	}
	d.says(d.slipway(exitDone, "events", "eventful"), "Application eventful  Suspended: suspended by", "to be heard", "Pod eventful/web-")
}

// Following tells what was, what comes, and what comes of objects that are new; an interrupt is a good end.
func TestFollowEvents(t *testing.T) {
	d := newDeck(t)
	d.application("followed", "", map[string]string{"production/settings.yaml": settings})
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	lines := &lineBuffer{}
	g := &globals{out: lines, env: func(key string) string { return d.env[key] }}
	code := make(chan int)
	var said error
	go func() {
		code <- execute(ctx, g, []string{"events", "followed", "-f", "-o", "json", "--kubeconfig", d.Cluster.Kubeconfig()}, func(err error) { said = err })
	}()
	d.eventually(func() error { return lines.has("Application", "Applied") })
	_, err := d.Commit(d.Context(), "Add a workload", world.Write("apps/followed/production/web.yaml", workload))
	d.must(err)
	d.eventually(func() error {
		return errors.Join(lines.has("Deployment", "ScalingReplicaSet"), lines.has("Pod", "Scheduled"))
	})
	interrupt()
	if got := <-code; got != exitDone {
		t.Errorf("exit code %d: %v", got, said)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(lines.String()) {
		if seen[line] {
			t.Errorf("told twice: %s", line)
		}
		seen[line] = true
	}
}

// lineBuffer is written by one and read by another.
type lineBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lineBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lineBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// has fails until an event of this kind and reason was told.
func (l *lineBuffer) has(kind, reason string) error {
	decoder := json.NewDecoder(strings.NewReader(l.String()))
	for {
		var event owned.Event
		if err := decoder.Decode(&event); err != nil {
			return fmt.Errorf("no event %s of a %s yet", reason, kind)
		}
		if event.Kind == kind && event.Reason == reason {
			return nil
		}
	}
}

func TestEventOutput(t *testing.T) {
	at := time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
	events := []owned.Event{
		{At: at, Application: "shop", Kind: "Application", Namespace: "slipway-system", Name: "shop", Type: "Normal", Reason: "Applied", Message: "applied refs/heads/main@sha1:0123 (set 4567)", Count: 1},
		{At: at.Add(time.Minute), Application: "shop", Kind: "Pod", Namespace: "shop", Name: "web-5d4f7c8b9-x2x7k", Type: "Warning", Reason: "FailedScheduling", Message: "0/3 nodes are available:\n3 node(s) didn't match Pod's node affinity/selector. preemption: 0/3 nodes are available. \x1b[2J", Count: 7},
	}
	var narrow, wide bytes.Buffer
	for _, event := range events {
		if err := errors.Join(printEvent(&narrow, terminal{width: 80}, event), printEvent(&wide, terminal{}, event)); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "output/events.human", narrow.String())
	golden(t, "output/events.wide", wide.String())
}

func TestWrap(t *testing.T) {
	if got := strings.Join(wrap("one two  three verylongword", 7), "|"); got != "one two|three|verylon|gword" {
		t.Errorf("got %s", got)
	}
	if got := shorten("abcdefghijkl", 9); got != "abc...jkl" {
		t.Errorf("got %s", got)
	}
}
