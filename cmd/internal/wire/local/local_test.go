package local_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/cmd/internal/wire/local"
	"github.com/slipway-cd/slipway/cmd/internal/wire/server"
	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/manifests/install"
	"github.com/slipway-cd/slipway/manifests/render"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/policy/sigstore"
	"github.com/slipway-cd/slipway/promoter/environment"
)

const (
	name      = "laptop"
	namespace = "slipway-system"
)

var shared *cluster.Cluster

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == wire.RenderChild {
		if err := render.Child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(childEnv) != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	var log bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Options{Name: "local", Node: cluster.NodeNone, Log: &log})
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

// starter is an application of one ConfigMap.
func starter() []gitsource.Change {
	file := func(path, content string) gitsource.Change {
		return gitsource.Change{Path: path, Content: []byte(content)}
	}
	return []gitsource.Change{
		file("slipway.yaml", "apiVersion: slipway.dev/v1alpha1\nkind: Delivery\nenvironments:\n- name: dev\n  path: apps/{app}/dev\n  promote: {by: commit}\n"),
		file("clusters/"+name+"/shop.yaml", `apiVersion: slipway.dev/v1alpha1
kind: Application
metadata: {name: shop, namespace: `+namespace+`}
spec:
  sourceRef: {name: `+install.SourceName+`}
  path: apps/shop/dev
  environment: dev
  targetNamespace: default
`),
		file("apps/shop/dev/greeting.yaml", greeting("hello")),
	}
}

func greeting(text string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: greeting}\ndata: {text: " + text + "}\n"
}

// freePorts finds three free ports in a row.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		free := true
		for next := port + 1; next < port+3; next++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", next))
			if err != nil {
				free = false
				break
			}
			l.Close()
		}
		first.Close()
		if free {
			return port
		}
	}
	t.Fatal("no three free ports in a row")
	return 0
}

// eventually fails the test unless f succeeds within 60 s.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: not within a minute: %v", what, err)
		case <-tick.C:
		}
	}
}

func options(config *rest.Config, data string, port int) local.Options {
	return local.Options{
		Config: config, Cluster: name, Namespace: namespace, Data: data, Port: port, Metrics: "0", Starter: starter(), Log: logr.Discard(),
		Install: func(url string) ([]*unstructured.Unstructured, error) {
			return install.Manifests(install.Options{Cluster: name, URL: url, Branch: local.Branch, Namespace: namespace, AgentUser: local.AgentUser})
		},
	}
}

// childEnv makes this binary the process that `slipway up` is: KUBECONFIG DATA PORT.
const childEnv = "SLIPWAY_TEST_LOCAL"

func child() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ctrl.SetLogger(logr.Discard())
	fields := strings.Fields(os.Getenv(childEnv))
	config, err := clientcmd.BuildConfigFromFlags("", fields[0])
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(fields[2])
	if err != nil {
		return err
	}
	l, err := local.Start(ctx, options(config, fields[1], port))
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(l); err != nil {
		return err
	}
	return l.Run(ctx)
}

// run starts a process of everything and waits until it has started.
func run(t *testing.T, data string, port int) (local.Local, func(os.Signal) error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", childEnv, shared.Kubeconfig(), data, port))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := func(signal os.Signal) error {
		_ = cmd.Process.Signal(signal)
		return cmd.Wait()
	}
	var l local.Local
	if err := json.NewDecoder(out).Decode(&l); err != nil {
		t.Fatalf("it did not start: %v, %v", err, end(os.Kill))
	}
	return l, end
}

func TestLocal(t *testing.T) {
	scheme := runtime.NewScheme()
	_ = clientgoscheme.AddToScheme(scheme)
	_ = v1alpha1.AddToScheme(scheme)
	kube, err := client.New(shared.RESTConfig(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	greets := func(want string) func() error {
		return func() error {
			var got corev1.ConfigMap
			if err := kube.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "greeting"}, &got); err != nil {
				return err
			}
			var app v1alpha1.Application
			if err := kube.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "shop"}, &app); err != nil {
				return err
			}
			ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
			if got.Data["text"] != want || ready == nil || ready.Status != metav1.ConditionTrue {
				return fmt.Errorf("it says %q, shop is %+v", got.Data["text"], ready)
			}
			return nil
		}
	}

	data, port := t.TempDir(), freePorts(t)
	first, end := run(t, data, port)
	if !first.Begun {
		t.Error("the repository was not empty")
	}
	eventually(t, "first start", greets("hello"))

	// The source is polled once a minute: what is faster came by push event, hub and stream.
	person, err := gogit.Open(t.Context(), gogit.Options{Dir: t.TempDir(), URL: first.GitURL})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	push(t, person, greeting("nudged"))
	eventually(t, "a push", greets("nudged"))
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("a push took %s to arrive", took)
	} else {
		t.Logf("a push was applied and healthy after %s", took)
	}

	image, err := random.Image(1<<10, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := crane.Push(image, first.Registry+"/shop:v1"); err != nil {
		t.Error(err)
	}
	if _, err := local.Start(t.Context(), options(shared.RESTConfig(), data, port)); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("a second one on the same folder: %v", err)
	}
	_ = end(os.Kill) // with nothing said before

	second, end := run(t, data, port)
	if second.Begun || second.GitURL != first.GitURL {
		t.Errorf("%+v", second)
	}
	tip, err := person.Fetch(t.Context(), "refs/heads/main")
	if err != nil {
		t.Fatal(err)
	}
	log, err := person.Log(t.Context(), tip.ID, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(log) != 3 { // begin, enrol, push
		t.Errorf("%d commits", len(log))
	}
	snapshot, err := person.SnapshotOf(t.Context(), tip.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snapshot.Tree.ReadFile(environment.AgentKeyPath(name)); err != nil {
		t.Error(err)
	}
	if _, err := crane.Digest(second.Registry + "/shop:v1"); err != nil {
		t.Error(err)
	}
	push(t, person, greeting("again"))
	eventually(t, "a push after the restart", greets("again"))
	if err := end(syscall.SIGTERM); err != nil {
		t.Errorf("it did not end well: %v", err)
	}
}

func push(t *testing.T, store *gogit.Store, content string) {
	t.Helper()
	tip, err := store.Fetch(t.Context(), "refs/heads/main")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := store.WriteTree(tip.ID, []gitsource.Change{{Path: "apps/shop/dev/greeting.yaml", Content: []byte(content)}})
	if err != nil {
		t.Fatal(err)
	}
	ann := gitsource.Person{Name: "Ann", Email: "ann@example.org", When: time.Now()}
	id, err := store.Commit(gitsource.NewCommit{Parents: []gitsource.ObjectID{tip.ID}, Tree: tree, Message: "Greet", Author: ann, Committer: ann})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Push(t.Context(), "refs/heads/main", tip.ID, id); err != nil {
		t.Fatal(err)
	}
}

// TestPortTaken: it says which part and leaves nothing behind.
func TestPortTaken(t *testing.T) {
	port := freePorts(t)
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+2))
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "up")
	if _, err := local.Start(t.Context(), options(shared.RESTConfig(), data, port)); err == nil || !strings.HasPrefix(err.Error(), "registry: ") {
		t.Error(err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	o := options(shared.RESTConfig(), data, port)
	o.Install = func(string) ([]*unstructured.Unstructured, error) { return nil, errors.New("far enough") }
	if _, err := local.Start(t.Context(), o); err == nil || err.Error() != "far enough" {
		t.Error(err)
	}
}

// TestPushIsBuilt: what is pushed to the Git host, to a repository that is not there yet, becomes a signed image.
func TestPushIsBuilt(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it compiles a program in a sandbox")
	}
	l, stop := run(t, t.TempDir(), freePorts(t))
	if l.NotBuilding != "" {
		t.Fatal(l.NotBuilding)
	}
	dir, source := t.TempDir(), strings.Replace(l.GitURL, local.Repository, "tiny", 1)
	for path, content := range map[string]string{
		"go.mod":        "module example.com/tiny\n\ngo 1.26\n",
		"main.go":       "package main\n\nfunc main() { println(\"tiny\") }\n",
		".pipeline.yml": "name: tiny\nstages:\n  - name: image\n    steps:\n      - uses: checkout\n      - run: test -f main.go\n      - uses: go-image\n        with: {repository: " + l.Registry + "/tiny}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"commit", "-qm", "Begin"}, {"push", "-q", source, "main"}} {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=Robin Marsh", "-c", "user.email=robin@shop.example"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
	client, err := server.Trusting(l.ServerTrust)
	if err != nil {
		t.Fatal(err)
	}
	var image builder.Image
	deadline := time.Now().Add(3 * time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ; image.Digest == ""; <-tick.C {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.ServerURL+"/v1/runs?repo=tiny", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		var page struct{ Runs []builder.Run }
		err = json.NewDecoder(answer.Body).Decode(&page)
		_ = answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s %v", answer.Status, err)
		}
		for _, r := range page.Runs {
			if r.State.Ended() && r.State != builder.Succeeded {
				t.Fatalf("%+v", r)
			}
			if r.State == builder.Succeeded {
				image = r.Jobs[0].Images[0]
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not built: %+v", page.Runs)
		}
	}
	key, err := os.ReadFile(l.SigningKey)
	if err != nil {
		t.Fatal(err)
	}
	_, err = sigstore.NewVerifier(sigstore.VerifierOptions{}).Verify(t.Context(), image.Reference(), policy.Requirement{
		Policy: "test", Keys: []policy.Key{{Name: "local", PEM: string(key)}}, Provenance: &policy.Provenance{Sources: []string{source}},
	})
	if err != nil {
		t.Error(err)
	}
	if err := stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}
