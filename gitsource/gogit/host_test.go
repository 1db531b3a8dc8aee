package gogit_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/policy"
)

// host is a real Git host: git http-backend behind net/http/cgi.
type host struct {
	t       testing.TB
	dir     string // bare repository
	work    string // somebody's checkout
	server  *httptest.Server
	packs   atomic.Int32 // downloads
	sent    atomic.Int64 // bytes of the last push
	refuse  atomic.Bool
	lostOne atomic.Bool // the answer to the next push is lost
	silent  atomic.Bool // the next push is answered by nothing
	hang    atomic.Bool // requests wait until the caller goes
	hanging chan struct{}
	clock   time.Time // a minute later with each command
}

func newHost(t testing.TB) *host {
	t.Helper()
	root := t.TempDir()
	h := &host{t: t, dir: filepath.Join(root, "repo.git"), work: filepath.Join(root, "work"), clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), hanging: make(chan struct{}, 10)}
	h.git(root, "init", "-q", "--bare", "-b", "main", h.dir)
	h.git(h.dir, "config", "http.receivepack", "true")
	h.git(h.dir, "config", "uploadpack.allowAnySHA1InWant", "true")
	h.git(root, "init", "-q", "-b", "main", h.work)
	h.git(h.work, "remote", "add", "origin", h.dir)
	backend := strings.TrimSpace(h.git(root, "--exec-path")) + "/git-http-backend"
	h.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.hang.Load() {
			h.hanging <- struct{}{}
			<-r.Context().Done()
			return
		}
		if h.refuse.Load() {
			if _, password, _ := r.BasicAuth(); password != "right" {
				w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "git-upload-pack") {
			h.packs.Add(1)
		}
		var out http.ResponseWriter = w
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "git-receive-pack") {
			h.sent.Store(r.ContentLength)
			if h.silent.Swap(false) {
				w.WriteHeader(http.StatusOK)
				return
			}
			if h.lostOne.Swap(false) {
				out = httptest.NewRecorder()
				defer func() { panic(http.ErrAbortHandler) }()
			}
		}
		(&cgi.Handler{
			Path: backend, Root: "/", Dir: root,
			Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=x", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1"},
		}).ServeHTTP(out, r)
	}))
	t.Cleanup(h.server.Close)
	return h
}

func (h *host) url() string { return h.server.URL + "/repo.git" }

func (h *host) git(dir string, args ...string) string {
	h.t.Helper()
	return strings.TrimSpace(string(h.run(dir, args...)))
}

// raw is the output of git in the checkout, byte by byte.
func (h *host) raw(args ...string) []byte {
	h.t.Helper()
	return h.run(h.work, args...)
}

func (h *host) run(dir string, args ...string) []byte {
	h.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	h.clock = h.clock.Add(time.Minute)
	cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE="+h.clock.Format(time.RFC3339),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@b")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// commit writes files ("" removes) in the checkout, commits, pushes and returns the id.
func (h *host) commit(message string, files map[string]string) gitsource.ObjectID {
	h.t.Helper()
	for name, content := range files {
		full := filepath.Join(h.work, name)
		if content == "" {
			h.git(h.work, "rm", "-q", name)
			continue
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
	h.git(h.work, "add", "-A")
	h.git(h.work, "commit", "-q", "--allow-empty", "-m", message)
	h.git(h.work, "push", "-q", "-f", "origin", "HEAD:"+h.git(h.work, "branch", "--show-current"))
	return gitsource.ObjectID(h.git(h.work, "rev-parse", "HEAD"))
}

func (h *host) store(dir string, with ...func(*gogit.Options)) *gogit.Store {
	h.t.Helper()
	options := gogit.Options{Dir: dir, URL: h.url()}
	for _, f := range with {
		f(&options)
	}
	s, err := gogit.Open(context.Background(), options)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func password(secret string) func(*gogit.Options) {
	return func(o *gogit.Options) { o.Auth = &gogit.Auth{Username: "u", Password: policy.NewSecret(secret)} }
}
