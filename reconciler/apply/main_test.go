package apply_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/apply"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// shared is the API server that all tests of the package use, each in a namespace of its own.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	flag.Parse()
	var log bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Options{Name: "apply", Node: cluster.NodeNone, Log: &log})
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s\nno API server: %v\n", log.String(), err)
		os.Exit(1)
	}
	shared = c
	code := m.Run()
	if err := c.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// world is one Application with a namespace of its own, and what the loop would keep of it.
type world struct {
	*testing.T
	ctx       context.Context
	namespace string
	app       types.NamespacedName
	client    kubernetes.Interface
	applier   *apply.Applier
	watcher   *apply.Watcher
	requests  *recorder
	owned     plan.Inventory
	ignore    []v1alpha1.IgnoreRule
	notes     chan manifests.Ref
}

// newWorld makes a namespace and an Applier whose requests are recorded.
func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	return newWorldHere(t)
}

// newWorldHere is newWorld for a test that needs several.
func newWorldHere(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	client := kubernetes.NewForConfigOrDie(shared.RESTConfig())
	namespace, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	requests := &recorder{}
	config := shared.RESTConfig()
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return requests.wrap(next) })
	applier, err := apply.New(apply.Options{Config: config, Refresh: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		T: t, ctx: ctx, namespace: namespace.Name, client: client, applier: applier, requests: requests,
		app:   types.NamespacedName{Namespace: namespace.Name, Name: "app-" + namespace.Name},
		owned: plan.Inventory{}, notes: make(chan manifests.Ref, 1000),
	}
	watching, stop := context.WithCancel(ctx)
	w.watcher = apply.NewWatcher(watching, applier, func(app types.NamespacedName, ref manifests.Ref) {
		if app == w.app {
			w.notes <- ref
		}
	})
	t.Cleanup(func() {
		stop()
		w.watcher.Wait()
		cancel()
	})
	return w
}

// set renders YAML; $NS is the namespace of the world.
func (w *world) set(content string) manifests.Set {
	w.Helper()
	set, err := manifests.NewSet(w.objects(content))
	if err != nil {
		w.Fatal(err)
	}
	return set
}

func (w *world) objects(content string) []*unstructured.Unstructured {
	w.Helper()
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(strings.ReplaceAll(content, "$NS", w.namespace)), 4096)
	var objects []*unstructured.Unstructured
	for {
		var o unstructured.Unstructured
		err := decoder.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			w.Fatal(err)
		}
		objects = append(objects, plan.Labelled(&o, w.app.Name))
	}
}

// compute observes and plans, as the loop does.
func (w *world) compute(set manifests.Set) plan.Plan {
	w.Helper()
	p, err := plan.Compute(plan.In{
		Application: w.app.Name, Want: set, Seen: w.observe(set), Owned: w.owned, Ignore: w.ignore,
		Options: plan.Options{Prune: true, Approved: true},
	})
	if err != nil {
		w.Fatal(err)
	}
	return p
}

func (w *world) observe(set manifests.Set) plan.Observed {
	refs := w.owned.Refs()
	for _, o := range set.Objects {
		if ref := manifests.RefOf(o); !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return w.applier.Observe(w.ctx, refs)
}

// try plans and applies, and keeps the Inventory.
func (w *world) try(set manifests.Set) (plan.Plan, apply.Result, error) {
	w.Helper()
	w.watcher.Track(w.app, w.owned.Merge(nil, nil))
	p := w.compute(set)
	result, err := w.applier.Apply(w.ctx, p, nil)
	w.owned = p.Inventory.Merge(result.Entries, result.Gone)
	w.watcher.Track(w.app, w.owned)
	return p, result, err
}

// apply must succeed; it returns the changes as text: "created ConfigMap a".
func (w *world) apply(set manifests.Set) []string {
	w.Helper()
	p, result, err := w.try(set)
	if err != nil {
		w.Fatalf("%v\nplan:\n%s", err, p)
	}
	var changes []string
	for _, c := range result.Done {
		changes = append(changes, c.Verb+" "+c.Ref.Kind+" "+c.Ref.Name)
	}
	return changes
}

// applied is apply with an expectation.
func (w *world) applied(set manifests.Set, want ...string) {
	w.Helper()
	if got := w.apply(set); !slices.Equal(got, want) {
		w.Fatalf("got changes %q, want %q", got, want)
	}
}

// synced waits until the watches know all that is owned.
func (w *world) synced() {
	w.Helper()
	w.eventually("the watches are synced", func() bool {
		if !w.watcher.Synced(w.app) {
			return false
		}
		for _, ref := range w.owned.Refs() {
			if live := w.watcher.Live(ref); live.State != plan.Present || live.Fields != w.owned[ref].Fields {
				return false
			}
		}
		return true
	})
}

// quiet forgets notifications and requests so far.
func (w *world) quiet() {
	for {
		select {
		case <-w.notes:
			continue
		default:
		}
		w.requests.reset()
		return
	}
}

// notified waits for a notification about ref.
func (w *world) notified(ref manifests.Ref) {
	w.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case got := <-w.notes:
			if got == ref {
				return
			}
		case <-deadline:
			w.Fatalf("no notification about %s", ref)
		}
	}
}

// eventually polls a condition.
func (w *world) eventually(what string, condition func() bool) {
	w.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			w.Fatalf("did not happen: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (w *world) ref(group, kind, name string) manifests.Ref {
	return manifests.Ref{Group: group, Kind: kind, Namespace: w.namespace, Name: name}
}

// must fails the test on an error of a step that only prepares.
func (w *world) must(_ any, err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// by are the options of an update by a manager.
func by(manager string) metav1.PatchOptions { return metav1.PatchOptions{FieldManager: manager} }

// recorder notes the requests that an Applier sends, without those of its watches.
type recorder struct {
	mu   sync.Mutex
	sent []string
	fail func(*http.Request) *http.Response
}

func (r *recorder) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		r.mu.Lock()
		if request.URL.Query().Get("watch") == "" {
			r.sent = append(r.sent, request.Method+" "+request.URL.Path)
		}
		fail := r.fail
		r.mu.Unlock()
		if fail != nil {
			if response := fail(request); response != nil {
				return response, nil
			}
		}
		return next.RoundTrip(request)
	})
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = nil
}

func (r *recorder) requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sent)
}

// failWith answers requests instead of the server; nil ends that.
func (r *recorder) failWith(fail func(*http.Request) *http.Response) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = fail
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
