package courses

import (
	"context"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"k8s.io/client-go/kubernetes"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/prometheus"
	"github.com/slipway-cd/slipway/e2e/traefik"
	"github.com/slipway-cd/slipway/e2e/world"
)

// atMost is generous: a machine that is busy takes seconds for each start of an agent, and there are many.
const atMost = 8 * time.Minute

// shared is the one cluster, Git host and Prometheus; each test has apps of its own, and an agent for its time.
var shared struct {
	*world.World
	clients *kubernetes.Clientset
	seen    *record
	dials   *dials
	target  string // HOST:PORT of dials
	metrics *prometheus.Server
	// good and better are well; crashing is not.
	good, better, crashing string
}

func TestMain(m *testing.M) {
	flag.Parse()
	ctx, cancel := context.WithCancel(context.Background())
	code := world.RunTests(m, "courses", 30*time.Minute, world.Options{Node: cluster.NodeKwok}, func(_ context.Context, w *world.World) error {
		return prepare(ctx, w)
	})
	cancel()
	os.Exit(code)
}

// prepare starts what ends with ctx.
func prepare(ctx context.Context, w *world.World) (err error) {
	shared.World, shared.clients = w, kubernetes.NewForConfigOrDie(w.Cluster.RESTConfig())
	crds, err := traefik.CRDs(ctx)
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"apply", "--server-side", "-f", crds}, {"wait", "--for=condition=Established", "crd", "--all"}} {
		if _, err := w.Cluster.Kubectl(ctx, args...); err != nil {
			return err
		}
	}
	for behaviour, into := range map[string]*string{"ready": &shared.good, "ready ": &shared.better, "crash": &shared.crashing} {
		image, reference, err := version(behaviour)
		if err == nil {
			err = push(ctx, image, reference)
		}
		if err != nil {
			return err
		}
		*into = reference
	}
	shared.dials = newDials()
	shared.target = strings.TrimPrefix(httptest.NewServer(shared.dials).URL, "http://") // until the process ends
	if err := startMetrics(ctx, ""); err != nil {
		return err
	}
	shared.seen, err = watch(ctx, w.Cluster.RESTConfig())
	if err == nil {
		_, err = w.Commit(ctx, "Deliver", world.Write("slipway.yaml", delivery))
	}
	return err
}

// startMetrics starts a Prometheus without data, on a free address or on that of one before.
func startMetrics(ctx context.Context, address string) error {
	dir, err := os.MkdirTemp(shared.Dir, "prometheus-")
	if err != nil {
		return err
	}
	shared.metrics, err = prometheus.Start(ctx, prometheus.Options{Dir: dir, Targets: []string{shared.target}, Address: address, Log: os.Stderr})
	return err
}

// version is an image whose simulated pods behave that way; words after the first only make it another one.
func version(behaviour string) (v1.Image, string, error) {
	word, _, _ := strings.Cut(behaviour, " ")
	image, err := mutate.Config(empty.Image, v1.Config{Labels: map[string]string{cluster.BehaviourLabel: word}, Env: []string{"VERSION=" + behaviour}})
	if err != nil {
		return nil, "", err
	}
	digest, err := image.Digest()
	return image, fmt.Sprintf("%s/web@%s", shared.Registry.Host(), digest), err
}

func push(ctx context.Context, image v1.Image, reference string) error {
	ref, err := name.NewDigest(reference)
	if err != nil {
		return err
	}
	return remote.Write(ref, image, remote.WithContext(ctx))
}

// agent starts one that ends with the test, unless it is killed before. Those of one test have one cache.
func agent(t *testing.T, failpoints ...string) *world.Process {
	t.Helper()
	process, err := shared.StartAgent(t.Context(), world.AgentOptions{
		Name: "agent-" + filepath.Base(t.Name()), Failpoint: strings.Join(failpoints, ","), Args: []string{"--prometheus", "http://" + shared.metrics.Address},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Kill)
	return process
}
