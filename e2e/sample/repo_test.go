package sample_test

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/gogit"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/install"
	"github.com/slipway-cd/slipway/manifests/render"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/environment"
)

const (
	image   = "registry.example/shop"
	cluster = "first" // of the starter
)

func digest(of string) string { return "sha256:" + strings.Repeat(of, 64) }

// repo is an environment repo in a store without a remote.
type repo struct {
	*testing.T
	store    *gogit.Store
	snapshot gitsource.Snapshot
	renderer *render.Renderer
}

func newRepo(t *testing.T, files []gitsource.Change) *repo {
	t.Helper()
	store, err := gogit.Open(t.Context(), gogit.Options{Dir: t.TempDir(), URL: "http://git.invalid/fleet.git"})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	renderer, err := render.New(render.Options{Command: []string{self, "render-child"}, Workers: 1, MemoryBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = renderer.Close() })
	r := &repo{T: t, store: store, renderer: renderer}
	r.commit("", files)
	return r
}

// demo is the environment repo of the demo.
func demo(t *testing.T) *repo {
	t.Helper()
	files, err := world.Folder(filepath.Join("..", "testdata", "env"), map[string]string{
		"SHOP_IMAGE_NAME": image, "SHOP_IMAGE_DIGEST": digest("a"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return newRepo(t, files)
}

// starter is the environment repo that `slipway init` writes.
func starter(t *testing.T) *repo {
	t.Helper()
	written, err := install.Starter(cluster)
	if err != nil {
		t.Fatal(err)
	}
	var files []gitsource.Change
	for name, content := range written {
		files = append(files, gitsource.Change{Path: name, Content: content})
	}
	return newRepo(t, files)
}

func (r *repo) commit(base gitsource.ObjectID, files []gitsource.Change) {
	r.Helper()
	tree, err := r.store.WriteTree(base, files)
	if err != nil {
		r.Fatal(err)
	}
	who := gitsource.Person{Name: "Robin", Email: "robin@shop.example", When: time.Unix(1_700_000_000, 0)}
	id, err := r.store.Commit(gitsource.NewCommit{Tree: tree, Message: "Start the fleet", Author: who, Committer: who})
	if err != nil {
		r.Fatal(err)
	}
	if r.snapshot, err = r.store.SnapshotOf(r.Context(), id); err != nil {
		r.Fatal(err)
	}
}

func (r *repo) file(name string) []byte {
	r.Helper()
	content, err := r.snapshot.Tree.ReadFile(name)
	if err != nil {
		r.Fatal(err)
	}
	return content
}

func (r *repo) delivery() environment.Delivery {
	r.Helper()
	delivery, err := environment.Parse(r.file(environment.DeliveryPath))
	if err != nil {
		r.Fatal(err)
	}
	return delivery
}

func (r *repo) render(app *v1alpha1.Application) manifests.Set {
	r.Helper()
	result, err := r.renderer.Render(r.Context(), r.snapshot, render.Spec{
		Path: app.Spec.Path, Application: app.Name, Namespace: app.Spec.TargetNamespace, Helm: app.Spec.Helm, KubeVersion: "v1.37.2",
	})
	if err != nil {
		r.Fatalf("%s: %v", app.Name, err)
	}
	return result.Set
}

// applications are what the root Application of a cluster renders to. Unknown fields fail the test.
func (r *repo) applications(name string) map[string]*v1alpha1.Application {
	r.Helper()
	root := &v1alpha1.Application{}
	root.Name, root.Spec.Path = name, path.Join("clusters", name)
	apps := map[string]*v1alpha1.Application{}
	for _, object := range r.render(root).Objects {
		app := &v1alpha1.Application{}
		strictly(r.T, object, app)
		apps[app.Name] = app
	}
	return apps
}

// strictly decodes object, which may have no field that into does not know.
func strictly(t *testing.T, object *unstructured.Unstructured, into any) {
	t.Helper()
	text, err := yaml.Marshal(object.Object)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", manifests.RefOf(object), err)
	}
}
