package render

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/e2e/peer"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// TestKustomizeParity compares what testdata/parity/kustomize renders to with `kustomize build`, object by object: the
// folder app of each archive. The only difference is the label of the Application.
func TestKustomizeParity(t *testing.T) {
	kustomize := theirs(t, peer.Kustomize)
	compareAll(t, "kustomize", func(t *testing.T, dir string, _ files) ([]*unstructured.Unstructured, Spec) {
		built, err := kustomize.Run(t.Context(), dir, "build", "--load-restrictor", "LoadRestrictionsNone", "app")
		if err != nil {
			t.Fatal(err)
		}
		return parityObjects(t, built), Spec{Path: "app", Application: "app"}
	})
}

// parityHooks says what becomes of the hooks of testdata/parity/charts; "" is left out.
var parityHooks = map[string]string{
	"pre-install":               manifests.HookPreApply,
	"pre-install,pre-upgrade":   manifests.HookPreApply,
	"post-install,post-upgrade": manifests.HookPostApply,
	"post-upgrade":              manifests.HookPostApply,
	"post-install, pre-upgrade": manifests.HookPostApply, // before a first installation there may be nothing to work on
	"pre-delete":                "",
	"post-rollback":             "",
	"test":                      "",
}

// TestHelmParity compares what testdata/parity/charts renders to with `helm template --include-crds`, object by object: the
// folder chart of each archive, with values.yaml beside it. What differs: objects get the namespace of the release, as an
// installation gives it to them, and hooks the annotations of parityHooks with their weight as the wave.
func TestHelmParity(t *testing.T) {
	helm := theirs(t, peer.Helm)
	compareAll(t, "charts", func(t *testing.T, dir string, repo files) ([]*unstructured.Unstructured, Spec) {
		spec := Spec{
			Path: "chart", Application: "app", Namespace: "shop", KubeVersion: "v1.33.2", Helm: &v1alpha1.HelmSpec{},
			APIVersions: []string{"v1", "policy/v1/PodDisruptionBudget", "monitoring.coreos.com/v1"},
		}
		args := []string{
			"template", "app", "chart", "--include-crds", "--namespace", spec.Namespace,
			"--kube-version", spec.KubeVersion, "--api-versions", strings.Join(spec.APIVersions, ","),
		}
		if _, has := repo["values.yaml"]; has {
			spec.Helm.ValuesFiles, args = []string{"values.yaml"}, append(args, "--values", "values.yaml")
		}
		printed, err := helm.Run(t.Context(), dir, args...)
		if err != nil {
			t.Fatal(err)
		}
		var want []*unstructured.Unstructured
		for _, object := range parityObjects(t, printed) {
			if installed(t, object, spec.Namespace) {
				want = append(want, object)
			}
		}
		return want, spec
	})
}

// TestRefusalParity: what kustomize and Helm refuse is refused here too, and not rendered in another way.
func TestRefusalParity(t *testing.T) {
	kustomize, helm := theirs(t, peer.Kustomize), theirs(t, peer.Helm)
	base := files{"chart/Chart.yaml": "{apiVersion: v2, name: chart, version: 1.0.0}", "app/a.yaml": configMap("a", "1")}
	chart := func(name, content string) files { return files{"chart/" + name: content} }
	app := func(content string) files { return files{"app/kustomization.yaml": content} }
	cases := map[string]files{
		"required value":             chart("templates/a.yaml", `{{ required "set host" .Values.host }}`),
		"fail":                       chart("templates/a.yaml", `{{ fail "no" }}`),
		"function that is not there": chart("templates/a.yaml", `{{ env "HOME" }}`),
		"template that is not there": chart("templates/a.yaml", `{{ include "none" . }}`),
		"field of nothing":           chart("templates/a.yaml", `a: {{ .Values.a.b.c }}`),
		"output that is not YAML":    chart("templates/a.yaml", "a: {"),
		"schema": {
			"chart/values.yaml": "port: many", "chart/values.schema.json": `{"properties": {"port": {"type": "integer"}}}`,
		},
		"kubeVersion":              chart("Chart.yaml", `{apiVersion: v2, name: chart, version: 1.0.0, kubeVersion: "<1.20"}`),
		"missing dependency":       chart("Chart.yaml", `{apiVersion: v2, name: chart, version: 1.0.0, dependencies: [{name: sub, version: 1.0.0}]}`),
		"chart without a version":  chart("Chart.yaml", `{apiVersion: v2, name: chart}`),
		"library":                  chart("Chart.yaml", `{apiVersion: v2, name: chart, version: 1.0.0, type: library}`),
		"unknown field":            app("resourcez: [a.yaml]"),
		"same object twice":        app("resources: [a.yaml, ../other/a.yaml]").with(files{"other/a.yaml": configMap("a", "2")}),
		"patch without its object": app("resources: [a.yaml]\npatches: [{patch: '{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}'}]"),
		"failed test":              app("resources: [a.yaml]\npatches: [{target: {kind: ConfigMap}, patch: '[{\"op\": \"test\", \"path\": \"/data/key\", \"value\": \"2\"}]'}]"),
		"merge without a base":     app("configMapGenerator: [{name: a, behavior: merge, literals: [a=b]}]"),
		"replacement from nothing": app("resources: [a.yaml]\nreplacements: [{source: {kind: Secret, name: x}, targets: [{select: {kind: ConfigMap}, fieldPaths: [data.key]}]}]"),
		"component as a resource":  app("resources: [../c]").with(files{"c/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"}),
		"base as a component":      app("components: [../c]").with(files{"c/kustomization.yaml": "resources: []\n"}),
	}
	renderer := newRenderer(t, nil)
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			repo, spec := base.with(change), Spec{Path: "app", Application: "app"}
			command, args := kustomize, []string{"build", "--load-restrictor", "LoadRestrictionsNone", "app"}
			if change["app/kustomization.yaml"] == "" {
				spec.Path, spec.Helm = "chart", &v1alpha1.HelmSpec{}
				command, args = helm, []string{"template", "app", "chart"}
			}
			if printed, err := command.Run(t.Context(), onDisk(t, repo), args...); err == nil {
				t.Fatalf("the other tool does not refuse it:\n%s", printed)
			}
			_, err := renderer.Render(t.Context(), repo.snapshot(), spec)
			if located := new(Error); !errors.As(err, &located) {
				t.Errorf("got %v, want a refusal", err)
			}
		})
	}
	t.Logf("%d refusals of kustomize and Helm are refusals here", len(cases))
}

// installed makes of an object that helm template prints what is to be rendered; false if it is left out.
func installed(t *testing.T, object *unstructured.Unstructured, namespace string) bool {
	t.Helper()
	cluster := []string{"CustomResourceDefinition", "Planet"}
	if object.GetNamespace() == "" && !slices.Contains(cluster, object.GetKind()) {
		object.SetNamespace(namespace)
	}
	annotations := object.GetAnnotations()
	event, is := annotations["helm.sh/hook"]
	if !is {
		return true
	}
	hook, known := parityHooks[event]
	if !known {
		t.Fatalf("say in parityHooks what becomes of %q", event)
	}
	annotations[manifests.AnnotationHook] = hook
	if weight := annotations["helm.sh/hook-weight"]; weight != "" {
		annotations[manifests.AnnotationWave] = weight
	}
	object.SetAnnotations(annotations)
	return hook != ""
}

func theirs(t *testing.T, find func(context.Context) (peer.Command, error)) peer.Command {
	t.Helper()
	command, err := find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return command
}

// compareAll renders the archives of a folder of testdata/parity and compares with what another tool makes of them.
func compareAll(t *testing.T, folder string, build func(*testing.T, string, files) ([]*unstructured.Unstructured, Spec)) {
	names, err := filepath.Glob(filepath.Join("testdata", "parity", folder, "*.txtar"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	renderer := newRenderer(t, nil)
	objects, equal := 0, 0
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			repo := unpack(string(content))
			want, spec := build(t, onDisk(t, repo), repo)
			if len(want) == 0 {
				t.Fatal("the other tool builds nothing, so nothing is compared")
			}
			sameObjects(t, want, mustRender(t, renderer, repo, spec).Set)
			objects += len(want)
			if !t.Failed() {
				equal++
			}
		})
	}
	t.Logf("%s: %d of %d render to the objects of the other tool, %d objects compared", folder, equal, len(names), objects)
}

// sameObjects compares a Set with what another tool made, the label of the Application aside.
func sameObjects(t *testing.T, want []*unstructured.Unstructured, set manifests.Set) {
	t.Helper()
	got := map[manifests.Ref]*unstructured.Unstructured{}
	for _, object := range set.Objects {
		object = object.DeepCopy()
		if object.GetLabels()[manifests.LabelApplication] != "app" {
			t.Errorf("%s has no label of its Application", manifests.RefOf(object))
		}
		unlabelled(object)
		got[manifests.RefOf(object)] = object
	}
	for _, object := range want {
		ref := manifests.RefOf(object)
		unlabelled(object)
		ours := got[ref]
		delete(got, ref)
		switch {
		case ours == nil:
			t.Errorf("%s is missing", ref)
		case !reflect.DeepEqual(object.Object, ours.Object):
			t.Errorf("%s differs\ntheirs:\n%s\nours:\n%s", ref, yamlOf(t, object), yamlOf(t, ours))
		}
	}
	for _, ref := range slices.SortedFunc(maps.Keys(got), manifests.Ref.Compare) {
		t.Errorf("%s is rendered here alone", ref)
	}
}

// unlabelled drops the label of the Application; no labels are none, however that is written.
func unlabelled(object *unstructured.Unstructured) {
	labels := object.GetLabels()
	delete(labels, manifests.LabelApplication)
	object.SetLabels(labels)
	if len(labels) == 0 {
		unstructured.RemoveNestedField(object.Object, "metadata", "labels")
	}
}

func yamlOf(t *testing.T, object *unstructured.Unstructured) []byte {
	t.Helper()
	content, err := yaml.Marshal(object.Object)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// unpack returns the files of an archive in the txtar format.
func unpack(archive string) files {
	marks := regexp.MustCompile(`(?m)^-- (\S+) --\n`).FindAllStringSubmatchIndex(archive, -1)
	repo := files{}
	for i, mark := range marks {
		end := len(archive)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		repo[archive[mark[2]:mark[3]]] = archive[mark[1]:end]
	}
	return repo
}

func onDisk(t *testing.T, repo files) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range repo {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// parityObjects reads YAML as kubectl and Helm do. Empty documents are none.
func parityObjects(t *testing.T, content string) []*unstructured.Unstructured {
	t.Helper()
	var objects []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLToJSONDecoder(strings.NewReader(content))
	for {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, content)
		}
		if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
			continue
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(raw); err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
		objects = append(objects, object)
	}
}
