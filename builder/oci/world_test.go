package oci

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/slipway-cd/slipway/e2e/cluster"
	"github.com/slipway-cd/slipway/gitsource"
)

// warm holds the Go caches that tests share: a module cache of this process, and the build cache of whoever runs the tests.
var warm string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "slipway-oci-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	warm = dir
	if out, err := exec.Command("go", "env", "GOCACHE").Output(); err == nil {
		if err := os.Symlink(strings.TrimSpace(string(out)), filepath.Join(dir, "build")); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	code := m.Run()
	_ = removeAll(dir)
	os.Exit(code)
}

// registryHost is a real registry behind a recorder of requests.
type registryHost struct {
	host     string
	mu       sync.Mutex
	requests []string
	// intercept answers instead of the registry where it returns true.
	intercept func(http.ResponseWriter, *http.Request) bool
}

func startRegistry(t *testing.T) *registryHost {
	t.Helper()
	real, err := cluster.StartRegistry(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = real.Close() })
	h := &registryHost{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: real.Host()})
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		h.mu.Lock()
		h.requests = append(h.requests, q.Method+" "+q.URL.RequestURI())
		intercept := h.intercept
		h.mu.Unlock()
		if intercept != nil && intercept(w, q) {
			return
		}
		proxy.ServeHTTP(w, q)
	}))
	t.Cleanup(front.Close)
	h.host = strings.TrimPrefix(front.URL, "http://")
	return h
}

func (h *registryHost) set(f func(http.ResponseWriter, *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.intercept = f
}

// take returns the requests since the last call that begin with a method and hold a text.
func (h *registryHost) take(method, text string) (found []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, q := range h.requests {
		if strings.HasPrefix(q, method) && strings.Contains(q, text) {
			found = append(found, q)
		}
	}
	return found
}

func (h *registryHost) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = nil
}

func newRegistry(t *testing.T, o Options) *Registry {
	t.Helper()
	if o.Cache == "" {
		o.Cache = t.TempDir()
	}
	o.Toolchain.Path = os.Getenv("PATH")
	if o.Toolchain.SumDB == "" {
		o.Toolchain.SumDB = "off"
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// plainRunner runs commands as they are, with paths of the sandbox replaced by those of the machine.
type plainRunner struct {
	t         *testing.T
	workspace string
	caches    string
	home      string
	user      uint32 // 0 for that of the test
	commands  []string
	networked []bool
	after     func(command []string)
}

func (p *plainRunner) Run(ctx context.Context, command, env []string, network bool) error {
	paths := strings.NewReplacer(Workspace, p.workspace, ModuleCache, filepath.Join(p.caches, "mod"), BuildCache, filepath.Join(p.caches, "build"))
	args, vars := make([]string, len(command)), make([]string, len(env))
	for i := range command {
		args[i] = paths.Replace(command[i])
	}
	for i := range env {
		vars[i] = paths.Replace(env[i])
		if p.home != "" && strings.HasPrefix(vars[i], "HOME=") {
			vars[i] = "HOME=" + p.home
		}
	}
	p.commands = append(p.commands, strings.Join(command, " "))
	p.networked = append(p.networked, network)
	program, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args[1:]...)
	cmd.Env, cmd.Dir = vars, p.workspace
	if p.user != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.user, Gid: p.user}}
	}
	out, err := cmd.CombinedOutput()
	if p.after != nil {
		p.after(command)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// checkout is a workspace with a program that needs no more of the standard library than the runtime.
func checkout(t *testing.T, more map[string]string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "slipway-workspace-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = removeAll(dir) })
	files := map[string]string{
		"go.mod":           "module example.com/shop\n\ngo 1.24\n",
		"cmd/shop/main.go": "package main\n\nvar version = \"none\"\n\nfunc main() { println(\"shop\", version) }\n",
	}
	for name, content := range more {
		files[name] = content
	}
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	return dir
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// moduleProxy serves example.com/greet v1.0.0 from a folder; sums is what go.sum has to say of it.
func moduleProxy(t *testing.T) (address string) {
	t.Helper()
	const mod = "module example.com/greet\n\ngo 1.24\n"
	dir := t.TempDir()
	at := filepath.Join(dir, "example.com", "greet", "@v")
	write(t, filepath.Join(at, "list"), "v1.0.0\n")
	write(t, filepath.Join(at, "v1.0.0.info"), `{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}`)
	write(t, filepath.Join(at, "v1.0.0.mod"), mod)
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	for name, content := range map[string]string{"go.mod": mod, "greet.go": "package greet\n\nconst Word = \"hello\"\n"} {
		w, err := z.Create("example.com/greet@v1.0.0/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(at, "v1.0.0.zip"), packed.String())
	return "file://" + dir
}

var committed = time.Date(2026, 5, 6, 7, 8, 9, 0, time.FixedZone("", 7200))

func shop(h *registryHost) GoImage {
	return GoImage{
		Package: "./cmd/shop", Repository: h.host + "/team/shop", Time: committed,
		Revision: gitsource.Revision{URL: "https://git.example/shop.git", Ref: "refs/heads/main", ID: "0123456789012345678901234567890123456789"},
	}
}

func build(t *testing.T, r *Registry, image GoImage, workspace string) (Built, *plainRunner) {
	t.Helper()
	run := &plainRunner{t: t, workspace: workspace, caches: warm}
	built, err := r.BuildGo(t.Context(), image, workspace, run)
	if err != nil {
		t.Fatal(err)
	}
	return built, run
}

// file is an entry of an archive in a test.
type file struct {
	name, link, content string
	kind                byte
	mode                int64
}

func archive(t *testing.T, files ...file) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Linkname: f.link, Size: int64(len(f.content)), Mode: f.mode, Typeflag: f.kind, ModTime: time.Unix(1e9, 0), Format: tar.FormatPAX}
		if f.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if f.mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// rawLayer is a layer whose config may lie about it.
type rawLayer struct {
	v1.Layer
	diffID v1.Hash
}

func (r rawLayer) DiffID() (v1.Hash, error) { return r.diffID, nil }

// pushLayers pushes an image for this machine and returns its reference by digest.
func pushLayers(t *testing.T, reference string, archives ...[]byte) string {
	t.Helper()
	var layers []v1.Layer
	for _, a := range archives {
		sum, _, err := v1.SHA256(bytes.NewReader(a))
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, rawLayer{Layer: static.NewLayer(zipped(t, a), types.OCILayer), diffID: sum})
	}
	return pushImage(t, reference, imageOf(t, runtime.GOARCH, layers...))
}

func imageOf(t *testing.T, arch string, layers ...v1.Layer) v1.Image {
	t.Helper()
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image, err := mutate.AppendLayers(mutate.ConfigMediaType(image, types.OCIConfigJSON), layers...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func pushImage(t *testing.T, reference string, image v1.Image) string {
	t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return ref.Context().Name() + "@" + digest.String()
}

// readable copies a folder that another user may not enter.
func readable(t *testing.T, address string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "slipway-proxy-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.CopyFS(dir, os.DirFS(strings.TrimPrefix(address, "file://"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return "file://" + dir
}
