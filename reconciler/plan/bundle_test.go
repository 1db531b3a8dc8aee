package plan_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// parseSet reads the documents of a YAML stream.
func parseSet(t *testing.T, content string) manifests.Set {
	t.Helper()
	var objects []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(content), 4096)
	for {
		var o unstructured.Unstructured
		if err := decoder.Decode(&o.Object); err != nil {
			break
		}
		objects = append(objects, &o)
	}
	set, err := manifests.NewSet(objects)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestCut(t *testing.T) {
	content, err := os.ReadFile("testdata/bundle.yaml")
	if err != nil {
		t.Fatal(err)
	}
	set := parseSet(t, string(content))
	bundles, bundled, err := plan.Cut(set)
	if err != nil {
		t.Fatal(err)
	}
	if len(bundles) != 2 {
		t.Fatalf("got %d bundles, want 2", len(bundles))
	}
	for _, want := range []struct {
		rollout string
		objects []string
	}{
		{"api", []string{"apps/Deployment shop/api"}},
		{"web", []string{
			"ConfigMap shop/envfrom", "ConfigMap shop/key", "ConfigMap shop/mounted", "ConfigMap shop/projected",
			"Secret shop/envfrom", "Secret shop/key", "Secret shop/mounted", "Secret shop/projected",
			"Service shop/web", "apps/Deployment shop/web",
		}},
	} {
		i := slices.IndexFunc(bundles, func(b plan.Bundle) bool { return b.Rollout.Name == want.rollout })
		var got []string
		for _, o := range bundles[i].Objects {
			got = append(got, manifests.RefOf(o).String())
			if !bundled[manifests.RefOf(o)] {
				t.Errorf("%s: in a Bundle and not bundled", manifests.RefOf(o))
			}
		}
		if !slices.Equal(got, want.objects) {
			t.Errorf("%s: got %q, want %q", want.rollout, got, want.objects)
		}
	}
	if len(bundled) != 11 {
		t.Errorf("got %d bundled objects, want 11", len(bundled))
	}
}

// A StatefulSet is moved with what it uses, also where a Deployment has its name.
func TestCutOfAStatefulSet(t *testing.T) {
	bundles, bundled, err := plan.Cut(parseSet(t, `
{apiVersion: slipway.dev/v1alpha1, kind: Rollout, metadata: {name: store, namespace: shop}, spec: {workloadRef: {kind: StatefulSet, name: web}}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: web, namespace: shop}, spec: {template: {spec: {containers: [{name: web, envFrom: [{configMapRef: {name: store}}]}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: store, namespace: shop}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, object := range bundles[0].Objects {
		got = append(got, manifests.RefOf(object).String())
	}
	if want := []string{"ConfigMap shop/store", "apps/StatefulSet shop/web"}; len(bundles) != 1 || len(bundled) != 2 || !slices.Equal(got, want) {
		t.Errorf("bundles %d, bundled %v, objects %q", len(bundles), bundled, got)
	}
}

func TestCutDigestFollowsTheBundleAlone(t *testing.T) {
	content, err := os.ReadFile("testdata/bundle.yaml")
	if err != nil {
		t.Fatal(err)
	}
	digest := func(content string) manifests.Digest {
		bundles, _, err := plan.Cut(parseSet(t, content))
		if err != nil {
			t.Fatal(err)
		}
		return bundles[1].Digest // web
	}
	before := digest(string(content))
	if digest(strings.Replace(string(content), "free: before", "free: after", 1)) != before {
		t.Error("an object outside of the Bundle changed its digest")
	}
	if digest(strings.Replace(string(content), "mounted: before", "mounted: after", 1)) == before {
		t.Error("a changed ConfigMap did not change the digest")
	}
}

func TestCutTakesTheRoutes(t *testing.T) {
	bundles, bundled, err := plan.Cut(parseSet(t, `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: web, namespace: shop}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: web, namespace: shop}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: other, namespace: shop}}
---
{apiVersion: slipway.dev/v1alpha1, kind: Rollout, metadata: {name: web, namespace: shop}, spec: {workloadRef: {name: web}, routes: [{name: web}, {kind: GRPCRoute, name: web}]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(bundles) != 1 || len(bundles[0].Objects) != 3 || len(bundled) != 3 {
		t.Errorf("%+v, %v", bundles, bundled)
	}
}

func TestCutRefuses(t *testing.T) {
	const deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n---\n"
	rollout := func(name, spec string) string {
		return "apiVersion: slipway.dev/v1alpha1\nkind: Rollout\nmetadata: {name: " + name + ", namespace: shop}\nspec: " + spec + "\n---\n"
	}
	for name, test := range map[string]struct{ yaml, want string }{
		"no workload": {rollout("web", "{workloadRef: {name: web}}"), "spec.workloadRef names apps/Deployment shop/web, which is not rendered"},
		"no service":  {deployment + rollout("web", "{workloadRef: {name: web}, services: [{name: web}]}"), "spec.services names Service shop/web, which is not rendered"},
		"no route":    {deployment + rollout("web", "{workloadRef: {name: web}, routes: [{name: web}]}"), "spec.routes names gateway.networking.k8s.io/HTTPRoute shop/web, which is not rendered"},
		"one route for two": {
			deployment + strings.ReplaceAll(deployment, "web", "api") + "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: both, namespace: shop}\n---\n" +
				rollout("api", "{workloadRef: {name: api}, routes: [{name: both}]}") + rollout("web", "{workloadRef: {name: web}, routes: [{name: both}]}"),
			"HTTPRoute shop/both is moved by slipway.dev/Rollout shop/api already",
		},
		"two rollouts": {
			deployment + rollout("a", "{workloadRef: {name: web}}") + rollout("b", "{workloadRef: {name: web}}"),
			"Rollout shop/b: apps/Deployment shop/web is moved by slipway.dev/Rollout shop/a already",
		},
		"other kind": {deployment + rollout("web", "{workloadRef: {kind: DaemonSet, name: web}}"), "DaemonSet is not supported"},
		"bad spec":   {deployment + rollout("web", "{workloadRef: [web]}"), "slipway.dev/Rollout shop/web: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := plan.Cut(parseSet(t, test.yaml))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
