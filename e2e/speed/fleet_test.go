package speed

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const (
	namespace = "fleet"
	hookToken = "what pushes are signed with"
	quiet     = 3 * time.Second // without a request: the agent has done what there was to do
)

// fleet is many Applications of four objects under one agent that hears of pushes by webhook.
type fleet struct {
	*testing.B
	*world.World
	n       int
	agent   *world.Process
	health  string // URL
	hooks   string // URL
	version int    // of what is committed
}

func newFleet(b *testing.B, n int) *fleet {
	b.Helper()
	dir, err := os.MkdirTemp("", "slipway-speed-")
	if err != nil {
		b.Fatal(err)
	}
	w, err := world.Start(b.Context(), world.Options{Dir: dir, Node: cluster.NodeKwok, AuditLog: true})
	if err != nil {
		b.Fatal(err)
	}
	f := &fleet{B: b, World: w, n: n}
	b.Cleanup(func() {
		if err := w.Stop(); err != nil {
			b.Error(err)
		}
		if !b.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	tip, err := f.Commit(b.Context(), "Start the fleet", world.Write("README.md", "# Fleet\n"),
		world.Write("clusters/demo/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+namespace+"}\n"))
	f.must(err)
	f.must(f.Install(b.Context()))
	f.must(w.Kube.Create(b.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: world.Namespace, Name: "hook"}, StringData: map[string]string{"token": hookToken},
	}))
	source := &v1alpha1.GitSource{}
	source.Namespace, source.Name = world.Namespace, "fleet"
	f.must(w.Kube.Patch(b.Context(), source, client.RawPatch("application/merge-patch+json",
		[]byte(`{"spec":{"interval":"10m","webhook":{"kind":"generic","secretRef":{"name":"hook"}}}}`))))
	f.start()
	f.must(f.WaitReady(b.Context(), time.Minute, tip, world.ClusterName))
	return f
}

func (f *fleet) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fleet) address() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a free port
	f.must(err)
	f.must(listener.Close())
	return listener.Addr().String()
}

func (f *fleet) start() {
	f.Helper()
	health, hooks := f.address(), f.address()
	var err error
	f.agent, err = f.StartAgent(f.Context(), world.AgentOptions{Args: []string{"--health-address", health, "--webhook-address", hooks}})
	f.must(err)
	f.health, f.hooks = "http://"+health+"/readyz", "http://"+hooks+"/v1/hooks/fleet"
}

// push makes a commit, and then pushes it and has the host tell the agent. It returns when that began: how fast a person's
// clone writes a commit of two thousand files is not what is measured.
func (f *fleet) push(changes ...gitsource.Change) (start time.Time) {
	f.Helper()
	before, err := f.Tip(f.Context())
	f.must(err)
	tip, err := f.CommitOn(f.Context(), before, "Change "+changes[0].Path, changes...)
	f.must(err)
	start = time.Now()
	f.must(f.Repo.Push(f.Context(), "refs/heads/"+world.Branch, before, tip))
	mac := hmac.New(sha256.New, []byte(hookToken))
	mac.Write([]byte(tip))
	request, err := http.NewRequestWithContext(f.Context(), http.MethodPost, f.hooks, strings.NewReader(string(tip)))
	f.must(err)
	request.Header.Set("X-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	answer, err := http.DefaultClient.Do(request)
	f.must(err)
	f.must(answer.Body.Close())
	if answer.StatusCode != http.StatusAccepted {
		f.Fatalf("webhook: HTTP %d", answer.StatusCode)
	}
	return start
}

// apps are the changes that bring in all Applications.
func (f *fleet) apps() (changes []gitsource.Change) {
	for i := range f.n {
		changes = append(changes, world.Write("clusters/demo/"+name(i)+".yaml", application(name(i))), world.Write("apps/"+name(i)+"/objects.yaml", world.FourObjects(name(i), 80)))
	}
	return changes
}

func name(i int) string { return fmt.Sprintf("app-%04d", i) }

func application(name string) string {
	return "apiVersion: slipway.dev/v1alpha1\nkind: Application\nmetadata: {name: " + name + ", namespace: slipway-system}\nspec:\n  sourceRef: {name: fleet}\n  path: apps/" + name + "\n  targetNamespace: " + namespace + "\n"
}

// allReady watches until all Applications are Ready.
func (f *fleet) allReady() {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 10*time.Minute)
	defer cancel()
	watch, err := f.Kube.Watch(ctx, &v1alpha1.ApplicationList{}, client.InNamespace(world.Namespace))
	f.must(err)
	defer watch.Stop()
	ready := map[string]bool{}
	for len(ready) < f.n+1 {
		select {
		case event, on := <-watch.ResultChan():
			app, is := event.Object.(*v1alpha1.Application)
			if !on || !is {
				f.Fatalf("the watch ended with %d of %d applications ready", len(ready), f.n+1)
			}
			condition := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
			if condition != nil && condition.Status == metav1.ConditionTrue && app.Status.ObservedGeneration == app.Generation {
				ready[app.Name] = true
			} else {
				delete(ready, app.Name)
			}
		case <-ctx.Done():
			f.Fatalf("%d of %d applications are ready: %v", len(ready), f.n+1, ctx.Err())
		}
	}
}

// since returns what was asked for since a time, once nothing has been asked for a while.
func (f *fleet) since(start time.Time) []world.Request {
	f.Helper()
	begun := time.Now()
	f.must(world.Eventually(f.Context(), 2*time.Minute, func() error {
		from := time.Now().Add(-quiet)
		if from.Before(begun) {
			return errors.New("too early to tell")
		}
		requests, err := f.Requests(from)
		if err == nil && len(requests) > 0 {
			err = fmt.Errorf("still at work: %s and %d more", requests[0], len(requests)-1)
		}
		return err
	}))
	requests, err := f.Requests(start)
	f.must(err)
	return requests
}

// row is one line of the table.
type row struct{ what, seen, target string }

// table prints what BENCH.md shows.
func (f *fleet) table(rows []row) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n| N = %d | seen | target |\n|---|---|---|\n", f.n)
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.what, r.seen, r.target)
	}
	f.B.Log(b.String())
	if path := os.Getenv("SLIPWAY_BENCH_TABLE"); path != "" {
		file, err := os.OpenFile(filepath.Clean(path), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // a table for people
		f.must(err)
		_, err = file.WriteString(b.String())
		f.must(errors.Join(err, file.Close()))
	}
}

func quantile(all []time.Duration, q float64) time.Duration {
	sorted := slices.SortedFunc(slices.Values(all), cmp.Compare[time.Duration])
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func named(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}
