package server_test

import (
	"context"
	"crypto/ed25519"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/cmd/internal/wire/server"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
	"github.com/slipway-cd/slipway/reconciler/report"
)

const (
	delivery = `apiVersion: slipway.dev/v1alpha1
kind: Delivery
environments:
  - name: production
    path: apps/{app}/production
    promote: {by: commit}
`
	images = "apps/shop/production/kustomization.yaml"
)

func kustomization(c string) string {
	return "resources: [../base]\nimages:\n- name: shop\n  newName: r.example/shop\n  digest: sha256:" + strings.Repeat(c, 64) + "\n"
}

// world is an environment repository on git's own HTTP server, in which
// production failed with b and was healthy with a.
type world struct {
	*testing.T
	dir, url        string
	agent           *gogit.Store
	key             ed25519.PrivateKey
	healthy, failed gitsource.ObjectID
}

func newWorld(t *testing.T) *world {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal("git is missing (apt-get install git)")
	}
	root := t.TempDir()
	host := httptest.NewServer(&cgi.Handler{Path: git, Args: []string{"http-backend"}, Stderr: io.Discard, Env: []string{
		"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
	}})
	t.Cleanup(host.Close)
	w := &world{T: t, dir: filepath.Join(root, "env.git"), url: host.URL + "/env.git"}
	w.git("init", "-q", "--bare", "-b", "main", w.dir)
	w.git("-C", w.dir, "config", "http.receivepack", "true")
	w.git("-C", w.dir, "config", "receive.denyNonFastForwards", "true")
	if w.agent, err = gogit.Open(t.Context(), gogit.Options{Dir: t.TempDir(), URL: w.url}); err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.key = private
	w.healthy = w.write("Begin", map[string]string{
		"slipway.yaml": delivery, images: kustomization("a"), "README.md": "hello\n",
		"apps/shop/base/kustomization.yaml": "resources: []\n",
		environment.AgentKeyPath("eu"):      string(undo.FormatPublicKey(public)),
	})
	w.failed = w.write("Promote", map[string]string{images: kustomization("b")})
	w.write("Unrelated", map[string]string{"README.md": "kept\n"})
	return w
}

func (w *world) git(args ...string) string {
	w.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// log is the subjects on a branch of the host, newest first.
func (w *world) log(branch string) []string {
	w.Helper()
	return strings.Split(w.git("-C", w.dir, "log", "--format=%s", branch), "\n")
}

func (w *world) tip() gitsource.ObjectID {
	w.Helper()
	return gitsource.ObjectID(w.git("-C", w.dir, "rev-parse", "main"))
}

// write is what others do: a commit on main.
func (w *world) write(message string, files map[string]string) gitsource.ObjectID {
	w.Helper()
	var changes []gitsource.Change
	for path, content := range files {
		changes = append(changes, gitsource.Change{Path: path, Content: []byte(content)})
	}
	var parents []gitsource.ObjectID
	var old gitsource.ObjectID
	if at, err := w.agent.Fetch(w.Context(), "refs/heads/main"); err == nil {
		old = at.ID
		parents = append(parents, old)
	}
	tree, err := w.agent.WriteTree(old, changes)
	if err != nil {
		w.Fatal(err)
	}
	bob := gitsource.Person{Name: "Bob", Email: "bob@example.org", When: time.Now()}
	id, err := w.agent.Commit(gitsource.NewCommit{Parents: parents, Tree: tree, Message: message, Author: bob, Committer: bob})
	if err != nil {
		w.Fatal(err)
	}
	if err := w.agent.Push(w.Context(), "refs/heads/main", old, id); err != nil {
		w.Fatal(err)
	}
	return id
}

// request is what the agent composes at the tip and signs.
func (w *world) request() v1alpha1.RevertRequest {
	w.Helper()
	tip, err := w.agent.Fetch(w.Context(), "refs/heads/main")
	if err != nil {
		w.Fatal(err)
	}
	r := v1alpha1.RevertRequest{
		URL: w.url, Branch: "main", Cluster: "eu", App: "shop", Environment: "production", Path: "apps/shop/production",
		Tip: string(tip.ID), Failed: string(w.failed), Healthy: string(w.healthy), Direct: true,
		Holds: []v1alpha1.HeldImage{{Name: "r.example/shop", Digest: "sha256:" + strings.Repeat("b", 64)}},
		At:    metav1.NewTime(time.Now().Truncate(time.Second)),
	}
	var trees undo.Trees
	for to, id := range map[*gitsource.Tree]gitsource.ObjectID{&trees.Failed: w.failed, &trees.Healthy: w.healthy, &trees.Tip: tip.ID} {
		snapshot, err := w.agent.SnapshotOf(w.Context(), id)
		if err != nil {
			w.Fatal(err)
		}
		*to = snapshot.Tree
	}
	revert, err := undo.ComposeRevert(trees, promoter.FactsOf(r), undo.Evidence{Verdict: v1alpha1.Verdict{Outcome: "Fail", Reason: "Deadline", Message: "0 of 3"}})
	if err != nil {
		w.Fatal(err)
	}
	tree, err := w.agent.WriteTree(tip.ID, revert.Changes)
	if err != nil {
		w.Fatal(err)
	}
	r.Tree, r.Message = string(tree), revert.Message
	w.sign(&r)
	return r
}

func (w *world) sign(r *v1alpha1.RevertRequest) {
	w.Helper()
	if err := undo.Sign(w.key, r); err != nil {
		w.Fatal(err)
	}
}

// running is a server over TLS that trusts nobody, and an agent's client of it.
type running struct {
	*report.Client
	url  string
	stop func()
}

// serve runs a server in this process until stop is called or the test ends.
func (w *world) serve(change func(*server.Options)) running {
	w.Helper()
	dir := w.TempDir()
	config, trust, err := server.SelfSigned(filepath.Join(dir, "tls"), []string{"127.0.0.1"})
	if err != nil {
		w.Fatal(err)
	}
	o := server.Options{
		Repositories: []server.Repository{{URL: w.url}}, Listen: "127.0.0.1:0", TLS: config, Data: dir, Log: logr.Discard(),
	}
	if change != nil {
		change(&o)
	}
	s, err := server.New(w.Context(), o)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	r := running{url: "https://" + s.Address(), stop: func() {
		w.Helper()
		cancel()
		if err := <-ended; err != nil {
			w.Error(err)
		}
		ended <- nil
	}}
	w.Cleanup(r.stop)
	client, err := server.Trusting(trust)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(client.CloseIdleConnections)
	r.Client = w.client(r.url, client)
	return r
}

func (w *world) client(url string, over *http.Client) *report.Client {
	w.Helper()
	client, err := report.New(report.Options{Server: url, Cluster: "eu", HTTP: over})
	if err != nil {
		w.Fatal(err)
	}
	return client
}
