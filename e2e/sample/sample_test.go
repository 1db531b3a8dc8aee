// Package sample_test holds the repos and the service that people see first, e2e/testdata
// and what `slipway init` writes, against the code that reads them: a mistake there would
// otherwise show only when everything runs.
package sample_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/install"
	"github.com/slipway-cd/slipway/manifests/render"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain makes the test binary its own render child.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "render-child" {
		if err := render.Child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestEnvironments(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*repo{"demo": demo(t), "starter": starter(t)} {
		want := environment.Delivery{Environments: []environment.Environment{
			{Name: "dev", Path: "apps/{app}/dev", By: environment.Commit},
			{Name: "production", After: []string{"dev"}, Path: "apps/{app}/production", By: environment.PullRequest},
		}}
		if got := r.delivery(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestDemoRenders(t *testing.T) {
	t.Parallel()
	r := demo(t)
	apps := r.applications("demo")
	if got := len(apps); got != 4 {
		t.Errorf("%d Applications, want namespaces, hello, shop-dev and shop-production", got)
	}
	r.check(apps)
	for name, app := range apps {
		golden(t, name, r.render(app))
	}
}

func TestStarterRenders(t *testing.T) {
	t.Parallel()
	r := starter(t)
	apps := r.applications(cluster)
	if got := len(apps); got != 3 {
		t.Errorf("%d Applications, want namespaces, hello-dev and hello-production", got)
	}
	r.check(apps)
}

// check holds Applications against the rest of their repo.
func (r *repo) check(apps map[string]*v1alpha1.Application) {
	r.Helper()
	delivery, namespaces := r.delivery(), r.namespaces(apps)
	for name, app := range apps {
		if app.Namespace != "slipway-system" || app.Spec.SourceRef.Name != install.SourceName {
			r.Errorf("%s: namespace %s, source %s: the agent does not look there", name, app.Namespace, app.Spec.SourceRef.Name)
		}
		if app.Spec.Environment != "" {
			env, err := delivery.Find(app.Spec.Environment)
			if err != nil {
				r.Errorf("%s: %v", name, err)
			} else if got := env.AppPath(app.Spec.App); got != app.Spec.Path {
				r.Errorf("%s follows %s, but promotions into %s write %s", name, app.Spec.Path, env.Name, got)
			}
		}
		for _, object := range r.render(app).Objects {
			if ns := object.GetNamespace(); ns != "" && !slices.Contains(namespaces, ns) {
				r.Errorf("%s: %s is in a namespace that nobody makes", name, manifests.RefOf(object))
			}
			r.checkObject(object)
		}
	}
}

func (r *repo) checkObject(object *unstructured.Unstructured) {
	r.Helper()
	if object.GetKind() == "Rollout" {
		rollout := &v1alpha1.Rollout{}
		strictly(r.T, object, rollout)
		if rollout.Spec.Strategy.Rolling.ProgressDeadline.Duration <= 0 {
			r.Errorf("%s has no progress deadline", manifests.RefOf(object))
		}
	}
	for _, use := range manifests.ObjectImages(object) {
		if !strings.Contains(use.Image, "@sha256:") {
			r.Errorf("%s uses %s, which is not pinned by digest", use.Object, use.Image)
		}
	}
}

func (r *repo) namespaces(apps map[string]*v1alpha1.Application) []string {
	r.Helper()
	var names []string
	for _, app := range apps {
		for _, object := range r.render(app).Objects {
			if object.GetKind() == "Namespace" {
				names = append(names, object.GetName())
			}
		}
	}
	return names
}

// What a promotion writes must reach the Deployment of that environment, and of no other.
func TestPromotionReachesOneEnvironment(t *testing.T) {
	t.Parallel()
	r := demo(t)
	apps := r.applications("demo")
	before := r.render(apps["shop-production"]).Digest
	const file = "apps/shop/dev/kustomization.yaml"
	edited, changed, err := edit.Images(r.file(file), []edit.Image{{Name: "shop", NewName: image, Digest: digest("b")}})
	if err != nil || len(changed) != 1 {
		t.Fatalf("%v, %v", changed, err)
	}
	r.commit(r.snapshot.Revision.ID, []gitsource.Change{{Path: file, Content: edited}})
	uses := r.render(apps["shop-dev"]).Images()
	if len(uses) != 1 || uses[0].Image != image+"@"+digest("b") {
		t.Errorf("dev uses %v", uses)
	}
	if r.render(apps["shop-production"]).Digest != before {
		t.Error("production changed with dev")
	}
}

// golden compares a Set with testdata/NAME.yaml, but for how long a rollout may take: that
// is tuned to the machine and says nothing about how the repo renders.
func golden(t *testing.T, name string, set manifests.Set) {
	t.Helper()
	var objects []*unstructured.Unstructured
	for _, object := range set.Objects {
		if object.GetKind() == "Rollout" {
			object = object.DeepCopy()
			deadline := []string{"spec", "strategy", "rolling", "progressDeadline"}
			if err := unstructured.SetNestedField(object.Object, "DEADLINE", deadline...); err != nil {
				t.Fatal(err)
			}
		}
		objects = append(objects, object)
	}
	got, err := install.YAML(objects)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".yaml")
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s renders to something else (go test ./e2e/sample -update, and read the diff):\n%s", name, got)
	}
}
