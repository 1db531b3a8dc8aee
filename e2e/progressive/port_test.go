package progressive

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/prometheus"
	"github.com/slipway-cd/slipway/e2e/traefik"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
)

const atMost = 3 * time.Minute

// port is one cluster with real pods behind a gateway, which a Prometheus reads.
type port struct {
	*world.World
	gateway string // URL of what the gateway serves
	// good and better are well; failing answers a third of all requests by an error, and is ready.
	good, better, failing string
}

func newPort(t *testing.T) *port {
	t.Helper()
	dir, err := os.MkdirTemp("", "slipway-progressive-")
	if err != nil {
		t.Fatal(err)
	}
	w, err := world.Start(t.Context(), world.Options{Dir: dir, Node: cluster.NodeReal, Log: t.Output()})
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
	if err := errors.Join(p.images(t.Context()), p.Install(t.Context())); err != nil {
		t.Fatal(err)
	}
	program, err := traefik.Build(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.openGateway(t.Context(), program); err != nil {
		t.Fatal(err)
	}
	p.gateway = p.reach(t)
	return p
}

// images pushes the versions of the sample service.
func (p *port) images(ctx context.Context) error {
	root, err := world.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	for version, into := range map[string]*string{"1": &p.good, "2": &p.better, "3": &p.failing} {
		env := map[string]string{"SHOP_VERSION": version}
		if into == &p.failing {
			env["SHOP_FAILS"] = "33"
		}
		*into, err = cluster.BuildImage(ctx, p.Registry, cluster.ImageSpec{
			Package: filepath.Join(root, "e2e", "testdata", "shop"), Repository: "shop", Tag: version, Env: env,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// openGateway runs Traefik as a pod, and waits until it takes requests.
func (p *port) openGateway(ctx context.Context, program string) error {
	image, err := cluster.BuildImage(ctx, p.Registry, cluster.ImageSpec{Binary: program, Repository: "traefik"})
	if err != nil {
		return err
	}
	crds, err := traefik.CRDs(ctx)
	if err != nil {
		return err
	}
	edge, err := os.ReadFile(filepath.Join("testdata", "edge.yaml"))
	if err != nil {
		return err
	}
	file := filepath.Join(p.Dir, "edge.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(edge), "$TRAEFIK", image)), 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", crds},
		{"wait", "--for=condition=Established", "crd", "--all"},
		{"apply", "-f", file},
		{"wait", "--for=condition=Ready", "--timeout=90s", "-n", "edge", "pod/traefik"},
	} {
		if _, err := p.Cluster.Kubectl(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// reach makes an address here for what the gateway serves, and for its metrics at /metrics. The way to pods leads through
// the API server.
func (p *port) reach(t *testing.T) string {
	t.Helper()
	config := p.Cluster.RESTConfig()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	api, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(api)
		to := "8000"
		if r.In.URL.Path == "/metrics" {
			to = "8082"
		}
		r.Out.URL.Path = "/api/v1/namespaces/edge/pods/traefik:" + to + "/proxy" + r.In.URL.Path
		r.Out.Host = api.Host
	}}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return server.URL
}

// measure starts a Prometheus that reads the gateway, and returns its URL.
func (p *port) measure(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(p.Dir, "prometheus")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	server, err := prometheus.Start(t.Context(), prometheus.Options{Dir: dir, Targets: []string{strings.TrimPrefix(p.gateway, "http://")}, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	return "http://" + server.Address
}

const delivery = `apiVersion: slipway.dev/v1alpha1
kind: Delivery
environments:
  - {name: production, path: "apps/{app}/production", promote: {by: commit}}
`

// app returns the files of an app whose production runs an image, and whose Rollout has a strategy.
func (p *port) app(name, image, strategy string) ([]gitsource.Change, error) {
	workload, err := os.ReadFile(filepath.Join("testdata", "app.yaml"))
	if err != nil {
		return nil, err
	}
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
		world.Write("apps/"+name+"/base/web.yaml", strings.NewReplacer("$APP", name, "$STRATEGY", strategy).Replace(string(workload))),
		p.use(name, image),
	}, nil
}

// use is the change that puts an image into production of an app.
func (p *port) use(app, image string) gitsource.Change {
	name, digest, _ := strings.Cut(image, "@")
	return world.Write("apps/"+app+"/production/kustomization.yaml", "namespace: "+app+"\nresources: [../base]\nimages:\n  - name: web\n    newName: "+name+"\n    digest: "+digest+"\n")
}

// answers is what people who ask an app got.
type answers struct {
	asked, errors int
	by            map[string]int       // by version
	last          map[string]time.Time // of each version
}

// ask asks the gateway for an app, about 60 times a second, until the test ends; see tells what came so far.
func (p *port) ask(t *testing.T, app string) (see func() answers) {
	t.Helper()
	seen := make(chan answers)
	all := answers{by: map[string]int{}, last: map[string]time.Time{}}
	got := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		go func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				got <- p.once(ctx, app)
			}
		}()
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case seen <- all.copied():
			case answer := <-got:
				all.note(answer, time.Now())
			}
		}
	}()
	t.Cleanup(cancel)
	return func() answers { return <-seen }
}

// once returns the version that answered, or what came instead.
func (p *port) once(ctx context.Context, app string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.gateway+"/"+app, http.NoBody)
	if err != nil {
		return "!" + err.Error()
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "!" + err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "!" + err.Error()
	}
	_, version, _ := strings.Cut(strings.TrimSpace(string(body)), "from shop ")
	if response.StatusCode != http.StatusOK {
		return "!" + response.Status + " by " + version
	}
	return version
}

func (a *answers) note(answer string, at time.Time) {
	a.asked++
	if strings.HasPrefix(answer, "!") {
		a.errors++
	}
	_, by, is := strings.Cut(answer, " by ")
	if !is {
		by = answer
	}
	a.by[answer]++
	a.last[by] = at
}

func (a *answers) copied() answers {
	return answers{asked: a.asked, errors: a.errors, by: maps.Clone(a.by), last: maps.Clone(a.last)}
}
