package sources

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/install"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// TestMain lets the agent start this binary as the child that renders.
func TestMain(m *testing.M) {
	wire.Child()
	os.Exit(m.Run())
}

const atMost = time.Minute

// bed is a real API server and an agent in this process that follows repositories of a real Git host.
type bed struct {
	*testing.T
	kube client.Client
	root string // bare repositories, NAME.git
	url  string
	// commits are signed by the agent with this key.
	commits ed25519.PublicKey
}

func newSourceBed(t *testing.T) *bed {
	t.Helper()
	var log bytes.Buffer
	c, err := cluster.Start(t.Context(), cluster.Options{Name: "sources", Node: cluster.NodeNone, Log: &log})
	if err != nil {
		t.Fatalf("%s\nno API server: %v", log.String(), err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	scheme := runtime.NewScheme()
	b := &bed{T: t, root: t.TempDir()}
	b.must(clientgoscheme.AddToScheme(scheme))
	b.must(v1alpha1.AddToScheme(scheme))
	b.kube, err = client.New(c.RESTConfig(), client.Options{Scheme: scheme})
	b.must(err)
	definitions, err := install.CRDs()
	b.must(err)
	for _, definition := range definitions {
		b.must(b.kube.Create(t.Context(), definition))
	}
	namespace := &corev1.Namespace{}
	namespace.Name = world.Namespace
	b.must(b.kube.Create(t.Context(), namespace))
	b.must(world.Eventually(t.Context(), atMost, func() error { return b.kube.List(t.Context(), &v1alpha1.GitSourceList{}) }))
	b.serve()
	public, private, err := ed25519.GenerateKey(nil)
	b.must(err)
	b.commits = public
	ctx, cancel := context.WithCancel(context.Background())
	agent, err := wire.NewAgent(ctx, wire.AgentOptions{
		Config: c.RESTConfig(), Cluster: "demo", Namespace: world.Namespace, CacheDir: t.TempDir(), Metrics: "0", Health: "0", Key: private, Log: logr.Discard(),
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("agent: %v", err)
		}
	})
	return b
}

// backend is git http-backend behind net/http/cgi.
func (b *bed) backend() http.Handler {
	b.Helper()
	where, err := exec.Command("git", "--exec-path").Output()
	b.must(err)
	return &cgi.Handler{
		Path: strings.TrimSpace(string(where)) + "/git-http-backend", Root: "/", Dir: b.root,
		Env: []string{"GIT_PROJECT_ROOT=" + b.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1"},
	}
}

func (b *bed) serve() {
	server := httptest.NewServer(b.backend())
	b.Cleanup(server.Close)
	b.url = server.URL
}

// in returns the bed for a subtest.
func (b *bed) in(t *testing.T) *bed {
	inner := *b
	inner.T = t
	return &inner
}

func (b *bed) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// checkout is somebody's clone of a repository of the host.
type checkout struct {
	*testing.T
	dir string
	url string
}

func (b *bed) repository(name string) *checkout {
	b.Helper()
	c := &checkout{T: b.T, dir: b.TempDir(), url: b.url + "/" + name + ".git"}
	bare := filepath.Join(b.root, name+".git")
	c.git("init", "-q", "--bare", "-b", "main", bare)
	c.git("init", "-q", "-b", "main")
	c.git("remote", "add", "origin", bare)
	return c
}

func (c *checkout) git(args ...string) string {
	c.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@b")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		c.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// push commits a file of the folder app, with options for git commit, and pushes the branch and all tags.
func (c *checkout) push(content string, options ...string) string {
	c.Helper()
	if err := os.MkdirAll(filepath.Join(c.dir, "app"), 0o700); err != nil {
		c.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "app", "app.yaml"), []byte(content), 0o600); err != nil {
		c.Fatal(err)
	}
	c.git("add", "-A")
	c.git(append([]string{"commit", "-q", "--allow-empty", "-m", "Change"}, options...)...)
	c.git("push", "-q", "origin", "HEAD:main", "--tags")
	return c.git("rev-parse", "HEAD")
}

// tag makes a tag, with options for git tag, and pushes it.
func (c *checkout) tag(options ...string) {
	c.Helper()
	c.git(append([]string{"tag"}, options...)...)
	c.git("push", "-q", "origin", "--tags")
}

func (b *bed) source(name string, spec v1alpha1.GitSourceSpec) *v1alpha1.GitSource {
	src := &v1alpha1.GitSource{Spec: spec}
	src.Namespace, src.Name = world.Namespace, name
	return src
}

// look has the source looked at once more.
func (b *bed) look(name string) {
	b.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, manifests.AnnotationReconcile, time.Now().Format(time.RFC3339Nano))
	b.must(b.kube.Patch(b.Context(), b.source(name, v1alpha1.GitSourceSpec{}), client.RawPatch("application/merge-patch+json", patch)))
}

// at waits until the source is Ready at a revision.
func (b *bed) at(name, revision string) v1alpha1.GitSource {
	b.Helper()
	var src v1alpha1.GitSource
	b.must(world.Eventually(b.Context(), atMost, func() error {
		if err := b.kube.Get(b.Context(), client.ObjectKey{Namespace: world.Namespace, Name: name}, &src); err != nil {
			return err
		}
		if src.Status.Revision != revision || !conditions.IsReady(&src) || src.Status.ObservedGeneration != src.Generation {
			return fmt.Errorf("gitsource %s is at %q, want %q; %+v", name, src.Status.Revision, revision, src.Status.Conditions)
		}
		return nil
	}))
	return src
}

// refused waits until the source is not Ready, for a reason and with words in its message.
func (b *bed) refused(name, reason string, words ...string) v1alpha1.GitSource {
	b.Helper()
	var src v1alpha1.GitSource
	b.must(world.Eventually(b.Context(), atMost, func() error {
		if err := b.kube.Get(b.Context(), client.ObjectKey{Namespace: world.Namespace, Name: name}, &src); err != nil {
			return err
		}
		message := conditions.GetMessage(&src, v1alpha1.ConditionReady)
		if !conditions.IsFalse(&src, v1alpha1.ConditionReady) || conditions.GetReason(&src, v1alpha1.ConditionReady) != reason || src.Status.ObservedGeneration != src.Generation {
			return fmt.Errorf("gitsource %s: %+v", name, src.Status.Conditions)
		}
		for _, word := range words {
			if !strings.Contains(message, word) {
				return fmt.Errorf("gitsource %s: message %q does not say %q", name, message, word)
			}
		}
		return nil
	}))
	return src
}

// secret makes or replaces a Secret.
func (b *bed) secret(name string, data map[string][]byte) {
	b.Helper()
	secret := &corev1.Secret{Data: data}
	secret.Namespace, secret.Name = world.Namespace, name
	b.must(client.IgnoreNotFound(b.kube.Delete(b.Context(), secret.DeepCopy())))
	b.must(b.kube.Create(b.Context(), secret))
}

// change merges a patch into a source.
func (b *bed) change(name, patch string) {
	b.Helper()
	b.must(b.kube.Patch(b.Context(), b.source(name, v1alpha1.GitSourceSpec{}), client.RawPatch("application/merge-patch+json", []byte(patch))))
}

// sshKey is a key pair by ssh-keygen.
type sshKey struct{ file, public, fingerprint string }

func (c *checkout) key(name string) sshKey {
	c.Helper()
	file := filepath.Join(c.TempDir(), name)
	run := func(args ...string) string {
		out, err := exec.Command("ssh-keygen", args...).CombinedOutput()
		if err != nil {
			c.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
		return string(out)
	}
	run("-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file)
	content, err := os.ReadFile(file + ".pub")
	if err != nil {
		c.Fatal(err)
	}
	return sshKey{file: file, public: strings.TrimSpace(string(content)), fingerprint: strings.Fields(run("-l", "-f", file+".pub"))[1]}
}

// signWith has git sign, where it is asked to, with a key from here on.
func (c *checkout) signWith(key sshKey) {
	c.Helper()
	c.git("config", "gpg.format", "ssh")
	c.git("config", "user.signingKey", key.file)
}
