package progressive

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/traefik"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge/bare"
	"github.com/slipway-cd/slipway/manifests/render"
)

const atMost = 3 * time.Minute

// Ports of the gateway, on the node's own address.
const (
	webPort     = 8000
	metricsPort = 8082
)

// port is one cluster with real pods behind a gateway, which a Prometheus reads.
type port struct {
	*world.World
	agent    *world.Process
	renderer *render.Renderer // of what Git says
	pushes   *pushes
	versions sync.Map // of images
	// good and better are well; all others are ready, too. failing answers a third of all requests by an error, picky all
	// that have the header of testers; slow takes its time for half of them; crashing ends after some seconds, leaking
	// when it has taken all of its memory.
	good, better, failing, picky, slow, crashing, leaking string
}

// pushes are the times at which commits came to the Git host.
type pushes struct {
	sync.Mutex
	at map[gitsource.ObjectID]time.Time
}

func newPushes() *pushes { return &pushes{at: map[gitsource.ObjectID]time.Time{}} }

func (p *pushes) note(push bare.Push) {
	p.Lock()
	defer p.Unlock()
	p.at[push.New] = time.Now()
}

func (p *pushes) of(commit gitsource.ObjectID) time.Time {
	p.Lock()
	defer p.Unlock()
	return p.at[commit]
}

// images compiles the sample service and pushes its versions, of which all that are bad call themselves version 3.
func (p *port) images(ctx context.Context) error {
	root, err := world.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", p.program(), ".")
	build.Dir, build.Env = filepath.Join(root, "e2e", "testdata", "shop"), append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build of the sample: %w\n%s", err, out)
	}
	for _, image := range []struct {
		into *string
		tag  string
		env  map[string]string
	}{
		{&p.good, "good", map[string]string{"SHOP_VERSION": "1"}},
		{&p.better, "better", map[string]string{"SHOP_VERSION": "2"}},
		{&p.failing, "failing", map[string]string{"SHOP_VERSION": "3", "SHOP_FAILS": "33"}},
		{&p.picky, "picky", map[string]string{"SHOP_VERSION": "3", "SHOP_FAILS_FOR": testers + ": yes"}},
		{&p.slow, "slow", map[string]string{"SHOP_VERSION": "3", "SHOP_SLOW": "200ms", "SHOP_SLOWS": "50"}},
		{&p.crashing, "crashing", map[string]string{"SHOP_VERSION": "3", "SHOP_CRASHES_AFTER": "4s"}},
		{&p.leaking, "leaking", map[string]string{"SHOP_VERSION": "3", "SHOP_LEAKS": "15"}},
	} {
		if *image.into, err = p.image(ctx, image.tag, image.env); err != nil {
			return err
		}
	}
	return nil
}

func (p *port) program() string { return filepath.Join(p.Dir, "shop") }

// image pushes the sample service as it behaves with these variables.
func (p *port) image(ctx context.Context, tag string, env map[string]string) (string, error) {
	reference, err := cluster.BuildImage(ctx, p.Registry, cluster.ImageSpec{Binary: p.program(), Repository: "shop", Tag: tag, Env: env})
	p.versions.Store(reference, env["SHOP_VERSION"])
	return reference, err
}

// openGateway runs Traefik as a pod, and waits until it takes requests.
func (p *port) openGateway(ctx context.Context, log io.Writer) error {
	program, err := traefik.Build(ctx, log)
	if err != nil {
		return err
	}
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
	return append([]gitsource.Change{
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
		settings(name, "generatorOptions: {disableNameSuffixHash: true}\n"),
	}, p.use(name, image)...), nil
}

// settings makes the ConfigMap of an app, whose name says what is in it unless an option says otherwise.
func settings(app, options string) gitsource.Change {
	return world.Write("apps/"+app+"/production/settings/kustomization.yaml", "configMapGenerator: [{name: web, envs: [web.env]}]\n"+options)
}

// use are the changes that put an image into production of an app, and the configuration of its version with further settings.
func (p *port) use(app, image string, further ...string) []gitsource.Change {
	name, digest, _ := strings.Cut(image, "@")
	said := append([]string{"GREETING=" + greeting(p.version(image))}, further...)
	return []gitsource.Change{
		world.Write("apps/"+app+"/production/kustomization.yaml", "namespace: "+app+"\nresources: [../base, settings]\nimages:\n  - name: web\n    newName: "+name+"\n    digest: "+digest+"\n"),
		world.Write("apps/"+app+"/production/settings/web.env", strings.Join(said, "\n")+"\n"),
	}
}

func greeting(version string) string { return "Hello of " + version }

// version is what an image calls itself.
func (p *port) version(image string) string {
	version, _ := p.versions.Load(image)
	return fmt.Sprint(version)
}
