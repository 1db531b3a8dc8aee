package oci

import (
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/slipway-cd/slipway/policy"
)

var update = flag.Bool("update", false, "rewrite golden files")

// The same commit gives one digest: other folder, HOME, user, caches, clock and registry.
func TestSameCommitSameDigest(t *testing.T) {
	first, second := startRegistry(t), startRegistry(t)
	proxy := moduleProxy(t)
	source := map[string]string{
		"go.mod":           "module example.com/shop\n\ngo 1.24\n\nrequire example.com/greet v1.0.0\n",
		"go.sum":           greetSums,
		"cmd/shop/main.go": "package main\n\nimport \"example.com/greet\"\n\nfunc main() { println(greet.Word) }\n",
	}
	r := newRegistry(t, Options{Toolchain: Toolchain{Proxy: proxy}})
	one, run := build(t, r, shop(first), checkout(t, source))
	if want := []bool{true, false}; len(run.networked) != 2 || run.networked[0] != want[0] || run.networked[1] != want[1] {
		t.Errorf("network of the commands %q: %v, want %v", run.commands, run.networked, want)
	}

	workspace := checkout(t, source)
	year := time.Now().Add(-365 * 24 * time.Hour)
	if err := os.Chtimes(filepath.Join(workspace, "cmd/shop/main.go"), year, year); err != nil {
		t.Fatal(err)
	}
	other := &plainRunner{t: t, workspace: workspace, caches: checkout(t, nil), home: t.TempDir()}
	if os.Getuid() == 0 {
		other.user = 65534
		for _, dir := range []string{workspace, other.caches} {
			if err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Lchown(path, 65534, 65534)
			}); err != nil {
				t.Fatal(err)
			}
		}
		other.home = other.caches
	}
	t.Setenv("TMPDIR", "/tmp")
	elsewhere := newRegistry(t, Options{Toolchain: Toolchain{Proxy: readable(t, proxy)}})
	elsewhere.now = func() time.Time { return time.Now().Add(365 * 24 * time.Hour) }
	image := shop(second)
	image.Repository = second.host + "/elsewhere"
	two, err := elsewhere.BuildGo(t.Context(), image, workspace, other)
	if err != nil {
		t.Fatal(err)
	}
	if one.Image.Digest != two.Image.Digest {
		t.Errorf("digests differ: %s, %s", one.Image.Digest, two.Image.Digest)
	}
	if got, err := os.ReadFile(filepath.Join(workspace, "go.sum")); err != nil || string(got) != greetSums {
		t.Errorf("go.sum is now %q, %v", got, err)
	}
	if _, err := os.Lstat(filepath.Join(workspace, ".git")); !os.IsNotExist(err) {
		t.Errorf("the workspace keeps .git: %v", err)
	}
	wantMaterials := []string{"git+https://git.example/shop.git@refs/heads/main gitCommit:0123456789012345678901234567890123456789", "pkg:golang/example.com/greet@v1.0.0 dirHash:"}
	for i, want := range wantMaterials {
		if got := one.Materials[i].URI + " " + one.Materials[i].Digest; !strings.HasPrefix(got, want) {
			t.Errorf("material %d is %q, want %q", i, got, want)
		}
	}
}

func TestConfig(t *testing.T) {
	h := startRegistry(t)
	image := shop(h)
	image.Platforms, image.LDFlags, image.Tags = []string{"linux/amd64"}, "-X main.version=1.2.3", []string{"main"}
	built, _ := build(t, newRegistry(t, Options{Certificates: []byte("certificate\n")}), image, checkout(t, nil))
	ref, err := name.NewTag(h.host + "/team/shop:main")
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := pulled.Digest(); err != nil || digest.String() != built.Image.Digest {
		t.Errorf("tag is %s, %v, want %s", digest, err, built.Image.Digest)
	}
	manifest, err := pulled.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := pulled.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	// The program's bytes are those of the toolchain's version.
	config.RootFS.DiffIDs[1] = v1.Hash{Algorithm: "sha256", Hex: "..."}
	manifest.Layers[1].Digest, manifest.Layers[1].Size = v1.Hash{Algorithm: "sha256", Hex: "..."}, 0
	manifest.Config.Digest = v1.Hash{Algorithm: "sha256", Hex: "..."}
	golden(t, "image.json", map[string]any{"config": config, "manifest": manifest})
}

func golden(t *testing.T, name string, value any) {
	t.Helper()
	got, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		write(t, path, string(got)+"\n")
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != string(want) {
		t.Errorf("%s differs (run with -update to see how):\n%s", path, got)
	}
}

// What the registry has is not sent again: same build, next commit with the same program, other repository.
func TestLayersAreSentOnce(t *testing.T) {
	h := startRegistry(t)
	pushLayers(t, h.host+"/bases/small:1", archive(t, file{name: "etc/os-release", content: "small"}))
	r := newRegistry(t, Options{})
	workspace := checkout(t, nil)
	image := shop(h)
	image.Base = h.host + "/bases/small:1"
	h.forget()
	built, _ := build(t, r, image, workspace)
	if got := len(h.take("POST", "mount=")); got != 1 || built.Sent != 2 {
		t.Errorf("%d blobs mounted and %d sent, want the base mounted, program and config sent", got, built.Sent)
	}
	if !strings.HasPrefix(built.Base, h.host+"/bases/small@sha256:") {
		t.Errorf("base is recorded as %q", built.Base)
	}
	h.forget()
	again, _ := build(t, r, image, workspace)
	if again.Image != built.Image || again.Sent != 0 || len(h.take("PUT", "")) != 0 {
		t.Errorf("the same build sent %d blobs, %q", again.Sent, h.take("PUT", ""))
	}
	image.Revision.ID = "9999999999999999999999999999999999999999"
	image.Base = built.Base
	next, _ := build(t, r, image, workspace)
	if next.Image.Digest == built.Image.Digest || next.Sent != 1 {
		t.Errorf("the next commit sent %d blobs, want its config alone", next.Sent)
	}
	// Manifest by digest comes after all blobs.
	h.forget()
	image.Repository, image.Tags = h.host+"/other", []string{"a", "b"}
	build(t, r, image, workspace)
	var kinds []string
	for _, q := range h.take("PUT", "") {
		switch {
		case strings.Contains(q, "/blobs/"):
			kinds = append(kinds, "blob")
		case strings.Contains(q, "/manifests/sha256:"):
			kinds = append(kinds, "manifest")
		default:
			kinds = append(kinds, "tag")
		}
	}
	if got := strings.Join(kinds, " "); got != "blob blob manifest tag tag" {
		t.Errorf("order of writes is %q", got)
	}
}

func TestSeveralPlatforms(t *testing.T) {
	h := startRegistry(t)
	image := shop(h)
	image.Platforms = []string{"linux/amd64", "linux/arm64"}
	built, _ := build(t, newRegistry(t, Options{}), image, checkout(t, nil))
	ref, err := name.NewDigest(built.Image.Reference())
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if manifest.MediaType != types.OCIImageIndex || len(manifest.Manifests) != 2 {
		t.Fatalf("index is %+v", manifest)
	}
	for i, want := range image.Platforms {
		one, err := index.Image(manifest.Manifests[i].Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := one.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if got := manifest.Manifests[i].Platform.String(); got != want || config.Platform().String() != want {
			t.Errorf("image %d is for %s and says %s, want %s", i, got, config.Platform(), want)
		}
	}
}

func TestLoginIsRefused(t *testing.T) {
	h := startRegistry(t)
	h.set(func(w http.ResponseWriter, q *http.Request) bool {
		user, password, _ := q.BasicAuth()
		if user == "builder" && password == "right" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte("you said " + user + ":" + password)) // a registry that gives away what it was told
		return true
	})
	workspace := checkout(t, nil)
	for _, c := range []struct {
		password, want string
	}{
		{"right", ""},
		{"wr0ng-and-secret", "check user name and password of the login for " + h.host},
		{"", "there is no login for " + h.host},
	} {
		o := Options{}
		if c.password != "" {
			o.Logins = map[string]Login{h.host: {Username: "builder", Password: policy.NewSecret(c.password)}}
		}
		r := newRegistry(t, o)
		_, err := r.BuildGo(t.Context(), shop(h), workspace, &plainRunner{t: t, workspace: workspace, caches: warm})
		if c.want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		failure, ok := errors.AsType[*Error](err)
		if !ok || failure.Temporary() || failure.Status() != http.StatusUnauthorized {
			t.Fatalf("got %#v, want an Error that lasts", err)
		}
		if text := err.Error(); !strings.Contains(text, c.want) || !strings.Contains(text, h.host+"/team/shop") || strings.Contains(text, "secret") {
			t.Errorf("got %q, want %q in it, and no password", text, c.want)
		}
	}
}

func TestRegistryGoesDownInTheMiddle(t *testing.T) {
	h := startRegistry(t)
	r := newRegistry(t, Options{})
	workspace := checkout(t, nil)
	h.set(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodPut || !strings.Contains(q.URL.Path, "/blobs/uploads/") {
			return false
		}
		panic(http.ErrAbortHandler) // the connection ends without an answer
	})
	_, err := r.BuildGo(t.Context(), shop(h), workspace, &plainRunner{t: t, workspace: workspace, caches: warm})
	failure, ok := errors.AsType[*Error](err)
	if !ok || !failure.Temporary() || failure.Verb != "push" {
		t.Fatalf("got %v, want a temporary Error of the push", err)
	}
	if got := h.take("PUT", "/manifests/"); len(got) != 0 {
		t.Errorf("a manifest was pushed without its blobs: %q", got)
	}
	// Down once is not noticed.
	var once bool
	h.set(func(http.ResponseWriter, *http.Request) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !once {
			once = true
			panic(http.ErrAbortHandler)
		}
		return false
	})
	build(t, r, shop(h), workspace)
}

func TestRefused(t *testing.T) {
	h := startRegistry(t)
	r := newRegistry(t, Options{})
	for want, change := range map[string]func(*GoImage){
		`package "../x" is not`:                       func(i *GoImage) { i.Package = "../x" },
		`package "/etc" is not`:                       func(i *GoImage) { i.Package = "/etc" },
		`package "./..." is not`:                      func(i *GoImage) { i.Package = "./..." },
		`package "cmd/none" is not a folder`:          func(i *GoImage) { i.Package = "./cmd/none" },
		`platform "windows/amd64" (want`:              func(i *GoImage) { i.Platforms = []string{"windows/amd64"} },
		`unknown architecture "z80"`:                  func(i *GoImage) { i.Platforms = []string{"linux/z80"} },
		`unknown variant "v9"`:                        func(i *GoImage) { i.Platforms = []string{"linux/amd64/v9"} },
		`is there twice`:                              func(i *GoImage) { i.Platforms = []string{"linux/amd64", "linux/amd64"} },
		`want HOST/PATH`:                              func(i *GoImage) { i.Repository = "shop" },
		`tag "a b" is not one`:                        func(i *GoImage) { i.Tags = []string{"a b"} },
		`label "org.opencontainers.image.revision=x"`: func(i *GoImage) { i.Labels = []string{"org.opencontainers.image.revision=x"} },
		`label "bare"`:                                func(i *GoImage) { i.Labels = []string{"bare"} },
		`time of the commit`:                          func(i *GoImage) { i.Time = time.Time{} },
		`is the package a main package?`:              func(i *GoImage) { i.Package = "./lib" },
		`base: `:                                      func(i *GoImage) { i.Base = "::" },
	} {
		t.Run(want, func(t *testing.T) {
			image := shop(h)
			change(&image)
			workspace := checkout(t, map[string]string{"lib/lib.go": "package lib\n"})
			_, err := r.BuildGo(t.Context(), image, workspace, &plainRunner{t: t, workspace: workspace, caches: warm})
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want it refused with %q", err, want)
			}
		})
	}
}

// A step of the repository ran before and may have left anything in the workspace.
func TestHostileWorkspace(t *testing.T) {
	h := startRegistry(t)
	r := newRegistry(t, Options{})
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	link := func(t *testing.T, target, name string) {
		t.Helper()
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	for name, set := range map[string]func(*testing.T, string, *plainRunner){
		".git is a link out of it": func(t *testing.T, w string, _ *plainRunner) { link(t, outside, filepath.Join(w, ".git")) },
		"go.mod is a link out of it": func(t *testing.T, w string, _ *plainRunner) {
			link(t, filepath.Join(outside, "secret"), filepath.Join(w, "go.mod"))
		},
		"the program becomes a link out of it": func(t *testing.T, w string, p *plainRunner) {
			p.after = func([]string) { link(t, "/bin/sh", filepath.Join(w, output, "0", "shop")) }
		},
		"the package is a link out of it": func(t *testing.T, w string, _ *plainRunner) { link(t, outside, filepath.Join(w, "cmd", "shop")) },
	} {
		t.Run(name, func(t *testing.T) {
			workspace := checkout(t, nil)
			run := &plainRunner{t: t, workspace: workspace, caches: warm}
			set(t, workspace, run)
			if _, err := r.BuildGo(t.Context(), shop(h), workspace, run); !errors.Is(err, ErrRefused) {
				t.Errorf("got %v, want it refused", err)
			}
			if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
				t.Errorf("outside is %v, %v", left, err)
			}
		})
	}
}

func TestModulesThatAreThere(t *testing.T) {
	h := startRegistry(t)
	r := newRegistry(t, Options{})
	_, run := build(t, r, shop(h), checkout(t, nil))
	if len(run.commands) != 1 || !strings.Contains(run.commands[0], "-mod=readonly") {
		t.Errorf("without requirements ran %q", run.commands)
	}
	image := shop(h)
	_, run = build(t, r, image, checkout(t, map[string]string{
		"go.mod":                            "module example.com/shop\n\ngo 1.24\n\nrequire (\n\texample.com/greet v1.0.0\n)\n",
		"vendor/modules.txt":                "# example.com/greet v1.0.0\n## explicit; go 1.24\nexample.com/greet\n",
		"vendor/example.com/greet/greet.go": "package greet\n\nconst Word = \"hello\"\n",
		"cmd/shop/main.go":                  "package main\n\nimport \"example.com/greet\"\n\nfunc main() { println(greet.Word) }\n",
	}))
	if len(run.commands) != 1 || !strings.Contains(run.commands[0], "-mod=vendor") || run.networked[0] {
		t.Errorf("with vendor ran %q", run.commands)
	}
}

func TestProgramName(t *testing.T) {
	for _, c := range []struct{ dir, module, path, want string }{
		{"cmd/shop", ".", "example.com/x", "shop"},
		{".", ".", "example.com/shop", "shop"},
		{".", ".", "example.com/shop/v2", "shop"},
		{"sub", "sub", "example.com/sub/other", "other"},
		{".", ".", "", "program"},
		{"cmd/-rf", ".", "example.com/x", "program"},
	} {
		if got := programName(c.dir, c.module, c.path); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}
