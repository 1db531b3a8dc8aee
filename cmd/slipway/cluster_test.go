package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
)

const atMost = time.Minute

// shared is the cluster with an agent that all tests of commands which look at one use, each with an Application of its own.
var shared bench

// TestMain lets this binary start itself as the child that renders.
func TestMain(m *testing.M) {
	wire.Child()
	ctrl.SetLogger(logr.Discard())
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// bench is started by the first test that needs it.
type bench struct {
	once  sync.Once
	err   error
	dir   string
	world *world.World
	end   context.CancelFunc
	agent chan error
	log   bytes.Buffer
}

func (b *bench) start() error {
	b.once.Do(func() { b.err = b.begin() })
	return b.err
}

func (b *bench) begin() (err error) {
	if b.dir, err = os.MkdirTemp("", "slipway-cli"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	if b.world, err = world.Start(ctx, world.Options{Dir: b.dir, Node: cluster.NodeKwok, Log: &b.log}); err != nil {
		return fmt.Errorf("%s\nno world: %w", b.log.String(), err)
	}
	if _, err := b.world.Commit(ctx, "Start", world.Write("slipway.yaml", "apiVersion: slipway.dev/v1alpha1\nkind: Delivery\nenvironments:\n"+
		"  - {name: production, path: \"apps/{app}/production\", promote: {by: commit}}\n"), world.Write("clusters/demo/first.yaml", firstObject)); err != nil {
		return err
	}
	if err := b.world.Install(ctx); err != nil {
		return err
	}
	kubeconfig, err := b.world.Cluster.UserKubeconfig(world.AgentUser)
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	running, end := context.WithCancel(context.Background())
	agent, err := wire.NewAgent(running, wire.AgentOptions{
		Config: config, Cluster: world.ClusterName, Namespace: world.Namespace, CacheDir: filepath.Join(b.dir, "agent"),
		Metrics: "0", Health: "0", Log: logr.Discard(),
	})
	if err != nil {
		end()
		return err
	}
	b.end, b.agent = end, make(chan error, 1)
	go func() { b.agent <- agent.Run(running) }()
	return nil
}

func (b *bench) stop() error {
	var all []error
	if b.end != nil {
		b.end()
		all = append(all, <-b.agent)
	}
	if b.world != nil {
		all = append(all, b.world.Stop())
	}
	return errors.Join(append(all, os.RemoveAll(b.dir))...)
}

// firstObject keeps the folder of the cluster from being empty.
const firstObject = "apiVersion: v1\nkind: Namespace\nmetadata: {name: first}\n"

// deck is the shared cluster as one test sees it, with a person who types commands.
type deck struct {
	*testing.T
	*world.World
	env map[string]string
}

func newDeck(t *testing.T) *deck {
	t.Helper()
	if err := shared.start(); err != nil { // first: what it is built from lies in the cache of this machine
		t.Fatal(err)
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	return &deck{T: t, World: shared.world, env: map[string]string{"SLIPWAY_GIT_PASSWORD": "of nobody"}}
}

// application pushes an Application and waits until it is ready.
func (d *deck) application(name, spec string, files map[string]string) gitsource.ObjectID {
	d.Helper()
	commit := d.push(name, spec, files)
	d.must(d.WaitReady(d.Context(), atMost, commit, name))
	return commit
}

// push commits an Application of this name, with a namespace of its own, and the files below apps/NAME.
func (d *deck) push(name, spec string, files map[string]string) gitsource.ObjectID {
	d.Helper()
	text := strings.NewReplacer("APP", name, "SPEC", strings.TrimSpace(spec)).Replace(applicationYAML)
	changes := []gitsource.Change{world.Write("clusters/demo/"+name+".yaml", text)}
	for file, content := range files {
		changes = append(changes, world.Write("apps/"+name+"/"+file, content))
	}
	commit, err := d.Commit(d.Context(), "Start "+name, changes...)
	d.must(err)
	return commit
}

const applicationYAML = `apiVersion: v1
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
  targetNamespace: APP
  SPEC
`

// slipway runs a command and wants its exit code.
func (d *deck) slipway(want int, args ...string) string {
	d.Helper()
	code, out, complaint := command(d.T, d.env, append(args, "--repo", d.URL, "--kubeconfig", d.Cluster.Kubeconfig())...)
	if code != want {
		d.Fatalf("slipway %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, out, complaint)
	}
	return out + complaint
}

// read runs a command and decodes what it says.
func (d *deck) read(want int, into any, args ...string) {
	d.Helper()
	out := d.slipway(want, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		d.Fatalf("slipway %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// says wants each of these texts in what was said.
func (d *deck) says(text string, wanted ...string) {
	d.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			d.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

func (d *deck) eventually(f func() error) {
	d.Helper()
	d.must(world.Eventually(d.Context(), atMost, f))
}

func (d *deck) get(namespace, name string, object client.Object) {
	d.Helper()
	d.must(d.Kube.Get(d.Context(), client.ObjectKey{Namespace: namespace, Name: name}, object))
}

func (d *deck) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}
