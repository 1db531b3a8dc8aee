package render

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func overlayTest() v1alpha1.Overlay {
	return v1alpha1.Overlay{
		NamePrefix:        "eu-",
		CommonLabels:      map[string]string{"team": "shop"},
		CommonAnnotations: map[string]string{"owner": "shop@example.org"},
		Components:        []string{"components/extra"},
		Patches: []v1alpha1.Patch{
			{Patch: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 5}\n"},
			{
				Patch:  "- {op: add, path: /spec/template/spec/containers/0/args, value: [--debug]}\n",
				Target: &v1alpha1.PatchTarget{Kind: "Deployment", Name: "we.*"},
			},
		},
		ImageOverrides: []v1alpha1.ImageOverride{{Name: "registry.example/web", Digest: "sha256:" + strings.Repeat("b", 64)}},
	}
}

// The overlay does the same to a kustomization, a folder and a chart.
func TestOverlay(t *testing.T) {
	repo := shop().with(files{
		"folder/web.yaml":                         shop()["apps/shop/base/deploy.yaml"] + "---\n" + shop()["apps/shop/base/service.yaml"],
		"folder/crd.yaml":                         "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a.b}\nspec: {}\n",
		"chart/Chart.yaml":                        "apiVersion: v2\nname: chart\nversion: 1.0.0\n",
		"chart/templates/web.yaml":                shop()["apps/shop/base/deploy.yaml"],
		"chart/templates/account.yaml":            "apiVersion: v1\nkind: Secret\nmetadata: {name: pw, namespace: else}\nstringData: {a: b}\n",
		"apps/shop/base/uses/not-a-kustomization": "",
		"apps/shop/prod/kustomization.yaml":       "resources: [../base]\n",
	})
	renderer := newRenderer(t, nil)
	for _, test := range []struct {
		path string
		helm bool
		want []string
	}{
		{"apps/shop/prod", false, []string{"ClusterRole eu-reader", "ConfigMap n/eu-settings-*", "Deployment n/eu-web", "Service n/eu-web"}},
		{"folder", false, []string{"ClusterRole eu-reader", "CustomResourceDefinition a.b", "Deployment n/eu-web", "Service n/eu-web"}},
		{"chart", true, []string{"ClusterRole eu-reader", "Deployment n/eu-web", "Secret else/eu-pw"}},
	} {
		t.Run(test.path, func(t *testing.T) {
			spec := Spec{Path: test.path, Application: "app", Namespace: "n", Overlay: overlayTest()}
			if test.helm {
				spec.Helm = &v1alpha1.HelmSpec{}
			}
			set := mustRender(t, renderer, repo, spec).Set
			var got []string
			for _, object := range set.Objects {
				name, hash, _ := strings.Cut(object.GetName(), "settings-")
				if hash != "" {
					name += "settings-*"
				}
				got = append(got, object.GetKind()+" "+path.Join(object.GetNamespace(), name))
				if object.GetLabels()["team"] != "shop" || object.GetAnnotations()["owner"] != "shop@example.org" {
					t.Errorf("%s: labels %v annotations %v", object.GetName(), object.GetLabels(), object.GetAnnotations())
				}
				if object.GetKind() == "Deployment" {
					checkOverlaid(t, object)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func checkOverlaid(t *testing.T, deployment *unstructured.Unstructured) {
	t.Helper()
	spec := deployment.Object["spec"].(map[string]any)
	template := spec["template"].(map[string]any)
	container := template["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
	if spec["replicas"] != int64(5) || fmt.Sprint(container["args"]) != "[--debug]" {
		t.Errorf("replicas %v, container %v", spec["replicas"], container)
	}
	if image := container["image"]; image != "registry.example/web@sha256:"+strings.Repeat("b", 64) {
		t.Errorf("image %v", image)
	}
	metadata, selector := template["metadata"].(map[string]any), spec["selector"].(map[string]any)
	if fmt.Sprint(metadata) != "map[labels:map[app:web]]" || fmt.Sprint(selector) != "map[matchLabels:map[app:web]]" {
		t.Errorf("the pod template has %v, the selector %v", metadata, selector)
	}
}

func TestOverlayRefusals(t *testing.T) {
	repo := shop().with(files{"out": "-> ../elsewhere", "components/remote/kustomization.yaml": "kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\nresources: ['https://x.example/a.yaml']\n"})
	patch := func(patch string, target *v1alpha1.PatchTarget) v1alpha1.Overlay {
		return v1alpha1.Overlay{Patches: []v1alpha1.Patch{{Patch: patch, Target: target}}}
	}
	for name, test := range map[string]struct {
		overlay v1alpha1.Overlay
		want    string
	}{
		"component missing":  {v1alpha1.Overlay{Components: []string{"nowhere"}}, `spec.components: "nowhere" is not a folder`},
		"component outside":  {v1alpha1.Overlay{Components: []string{"../x"}}, "leaves the repository"},
		"component linked":   {v1alpha1.Overlay{Components: []string{"out"}}, "symbolic link out leaves the repository"},
		"component absolute": {v1alpha1.Overlay{Components: []string{"/etc"}}, `spec.components: "/etc" is not a folder`},
		"component remote":   {v1alpha1.Overlay{Components: []string{"components/remote"}}, "remote entry"},
		"patch of nothing":   {patch("apiVersion: v1\nkind: Service\nmetadata: {name: gone}\n", nil), "apps/shop/prod: "},
		"patch no YAML":      {patch("a: {", &v1alpha1.PatchTarget{Kind: "Service"}), "apps/shop/prod: "},
		"patch bomb":         {patch(bomb(), nil), "spec.patches[0]: YAML aliases expand to more than"},
		"bad selector":       {patch("- {op: remove, path: /x}", &v1alpha1.PatchTarget{Name: "("}), "apps/shop/prod: "},
	} {
		t.Run(name, func(t *testing.T) {
			spec := prod()
			spec.Overlay = test.overlay
			_, err := newRenderer(t, nil).Render(t.Context(), repo.snapshot(), spec)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// What only the overlay reads is part of the reads, and the overlay part of the key.
func TestOverlayIsMemoised(t *testing.T) {
	renderer := newRenderer(t, nil)
	spec := prod()
	spec.Overlay = v1alpha1.Overlay{Components: []string{"other"}}
	component := func(name string) files {
		return files{
			"other/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [cm.yaml]\n",
			"other/cm.yaml":            configMap(name, "1"),
		}
	}
	mustRender(t, renderer, shop().with(component("a")), spec)
	if !mustRender(t, renderer, shop().with(component("a")).with(files{"docs/x": "y"}), spec).Memoised {
		t.Error("a commit elsewhere is a miss")
	}
	if mustRender(t, renderer, shop().with(component("b")), spec).Memoised {
		t.Error("the component's change was not seen")
	}
	spec.Overlay.NamePrefix = "x-"
	if mustRender(t, renderer, shop().with(component("b")), spec).Memoised {
		t.Error("the overlay is not in the key")
	}
}
