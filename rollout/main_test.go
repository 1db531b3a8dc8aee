package rollout_test

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/traefik"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/rollout"
)

// shared is the cluster with simulated pods that all tests of the package use, each in a namespace of its own.
var shared struct {
	cluster  *cluster.Cluster
	registry *cluster.Registry
}

func TestMain(m *testing.M) {
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "rollout-registry-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	registry, err := cluster.StartRegistry(ctx, dir)
	if err != nil {
		return 1, err
	}
	defer registry.Close()
	var log bytes.Buffer
	c, err := cluster.Start(ctx, cluster.Options{Name: "rollout", Node: cluster.NodeKwok, Registry: registry, Log: &log})
	if err != nil {
		return 1, fmt.Errorf("%s\nno cluster: %w", log.String(), err)
	}
	shared.cluster, shared.registry = c, registry
	crds, err := filepath.Abs("../manifests/install/crd")
	if err != nil {
		return 1, err
	}
	routes, err := traefik.CRDs(ctx)
	if err != nil {
		return 1, err
	}
	for _, args := range [][]string{{"apply", "--server-side", "-f", crds, "-f", routes}, {"wait", "--for=condition=Established", "crd", "--all"}} {
		if _, err := c.Kubectl(ctx, args...); err != nil {
			return 1, err
		}
	}
	code := m.Run()
	return code, c.Stop()
}

// bed is one Rollout in a namespace of its own.
type bed struct {
	*testing.T
	ctx       context.Context
	namespace string
	client    client.Client
	events    *record.FakeRecorder
	told      []string
	// requests of the loop, without watches and leases.
	requests atomic.Int64
	// statusDown makes every write of a status fail.
	statusDown atomic.Bool
	// deploymentsDown makes every write of a Deployment fail.
	deploymentsDown atomic.Bool
	// failpoint is where the process is killed.
	failpoint atomic.Value
	kills     atomic.Int64
	stop      context.CancelFunc
	metrics   *prometheus.Registry
	// strategy replaces rolling where it is set; meter is what metrics are measured with.
	strategy map[string]any
	meter    rollout.Meter
	// kind of the workload, where it is no Deployment.
	kind string
	// drain replaces a millisecond where it is set.
	drain time.Duration
	// routes are what the Rollout names.
	routes []any
}

func newBed(t *testing.T) *bed {
	t.Helper()
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	c, err := client.New(shared.cluster.RESTConfig(), client.Options{Scheme: scheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}
	if err := c.Create(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	b := &bed{T: t, ctx: ctx, namespace: namespace.Name, client: c, events: record.NewFakeRecorder(1000)}
	b.failpoint.Store("")
	b.start()
	return b
}

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// start runs the loop, until stop or until it is killed at the failpoint.
func (b *bed) start() {
	b.Helper()
	cfg := shared.cluster.RESTConfig()
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &tripper{b, next} })
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme:                  scheme(b.T),
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		Cache:                   cache.Options{DefaultNamespaces: map[string]cache.Config{b.namespace: {}}},
		Controller:              config.Controller{SkipNameValidation: new(true)},
		GracefulShutdownTimeout: new(time.Duration), // a killed process does not wait
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	b.metrics = prometheus.NewRegistry()
	loop, err := rollout.New(rollout.Options{Events: b.events, Meter: b.meter, Servers: servers{}, Metrics: b.metrics, Drain: cmp.Or(b.drain, time.Millisecond), Patience: 10 * time.Second, Failpoint: func(name string) {
		if b.failpoint.CompareAndSwap(name, "") {
			b.kills.Add(1)
			cancel()
			select {} // a killed process does nothing more
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	if err := loop.SetupWithManager(mgr); err != nil {
		b.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = mgr.Start(ctx) })
	b.stop = func() {
		cancel()
		running.Wait()
	}
	b.Cleanup(b.stop)
}

// tripper counts the loop's requests and lets those fail that a test wants to fail.
type tripper struct {
	bed  *bed
	next http.RoundTripper
}

func (t *tripper) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Query().Get("watch") == "" {
		t.bed.requests.Add(1)
	}
	if t.bed.statusDown.Load() && strings.HasSuffix(request.URL.Path, "/status") {
		return nil, fmt.Errorf("the status cannot be written in this test")
	}
	if t.bed.deploymentsDown.Load() && request.Method != http.MethodGet && strings.Contains(request.URL.Path, "/deployments/") {
		return nil, fmt.Errorf("Deployments cannot be written in this test")
	}
	return t.next.RoundTrip(request)
}

// image pushes an image whose simulated pods behave that way.
func (b *bed) image(tag, behaviour string) string {
	b.Helper()
	image, err := mutate.Config(empty.Image, configWith(tag, behaviour))
	if err != nil {
		b.Fatal(err)
	}
	ref, err := name.NewTag(b.imageName(tag))
	if err != nil {
		b.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithContext(b.ctx)); err != nil {
		b.Fatal(err)
	}
	return ref.Name()
}

func (b *bed) imageName(tag string) string {
	return shared.registry.Host() + "/" + b.namespace + ":" + tag
}

// web is the Bundle that the tests move.
func (b *bed) web(image, greeting string) string {
	return strings.NewReplacer("$NS", b.namespace, "$IMAGE", image, "$GREETING", greeting).Replace(`
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: $NS}
data: {greeting: $GREETING}
---
apiVersion: v1
kind: Secret
metadata: {name: web, namespace: $NS}
stringData: {password: of-$GREETING}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: $NS}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: $NS}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "$IMAGE"}]}
`)
}

func (b *bed) objects(content string) []*unstructured.Unstructured {
	b.Helper()
	var objects []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(content), 4096)
	for {
		var o unstructured.Unstructured
		if decoder.Decode(&o.Object) != nil {
			return objects
		}
		objects = append(objects, &o)
	}
}

// rollOut does what the reconciler does: stores the Bundle, applies the Rollout and points it there.
func (b *bed) rollOut(deadline time.Duration, content string) v1alpha1.BundleRef {
	b.Helper()
	ref := manifests.Ref{Group: v1alpha1.Group, Kind: "Rollout", Namespace: b.namespace, Name: "web"}
	data, secret, digest, err := manifests.PackBundle(ref, b.objects(content))
	if err != nil {
		b.Fatal(err)
	}
	bundle := v1alpha1.BundleRef{Name: manifests.BundleName(ref, digest), Digest: string(digest), SetDigest: string(digest), Revision: "commit"}
	web := b.applyRollout(deadline, nil)
	owner := []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion().String(), Kind: "Rollout", Name: web.Name, UID: web.UID}}
	meta := metav1.ObjectMeta{Name: bundle.Name, Namespace: b.namespace, OwnerReferences: owner}
	b.create(&appsv1.ControllerRevision{ObjectMeta: meta, Data: runtime.RawExtension{Raw: data}})
	b.create(&corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{manifests.BundleSecretKey: secret}})
	b.applyRollout(deadline, &bundle)
	return bundle
}

func (b *bed) create(object client.Object) {
	b.Helper()
	if err := b.client.Create(b.ctx, object); err != nil && !apierrors.IsAlreadyExists(err) {
		b.Fatal(err)
	}
}

func (b *bed) applyRollout(deadline time.Duration, bundle *v1alpha1.BundleRef) *v1alpha1.Rollout {
	b.Helper()
	spec := map[string]any{
		"workloadRef": map[string]any{"name": "web"},
		"strategy":    map[string]any{"rolling": map[string]any{"progressDeadline": deadline.String()}},
	}
	if b.strategy != nil {
		spec["strategy"], spec["services"] = b.strategy, []any{map[string]any{"name": "web"}}
	}
	if b.kind != "" {
		spec["workloadRef"] = map[string]any{"kind": b.kind, "name": "web"}
	}
	if b.routes != nil {
		spec["routes"] = b.routes
	}
	if bundle != nil {
		spec["bundle"] = map[string]any{"name": bundle.Name, "digest": bundle.Digest, "setDigest": bundle.SetDigest, "revision": bundle.Revision}
	} else if current := b.rollout(); current != nil && current.Spec.Bundle != nil {
		return current // keep it pointed where it is until the new Bundle is stored
	}
	b.apply(manifests.FieldManager, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion().String(), "kind": "Rollout",
		"metadata": map[string]any{"name": "web", "namespace": b.namespace, "labels": map[string]any{manifests.LabelApplication: "shop"}},
		"spec":     spec,
	}})
	return b.rollout()
}

func (b *bed) apply(manager string, object *unstructured.Unstructured) {
	b.Helper()
	if err := b.client.Apply(b.ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(manager), client.ForceOwnership); err != nil {
		b.Fatal(err)
	}
}
