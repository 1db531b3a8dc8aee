package plan_test

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

func deployment(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	err := yaml.Unmarshal([]byte(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop, annotations: {a/b: x, c: y}},
  spec: {replicas: 3, template: {spec: {containers: [{name: web, image: web:1}, {name: side, image: side:1}]}}}}`), &o.Object)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestIgnore(t *testing.T) {
	for name, c := range map[string]struct {
		rule v1alpha1.IgnoreRule
		want string // what must be gone from the JSON, or the error
	}{
		"replicas":         {v1alpha1.IgnoreRule{Target: v1alpha1.ObjectSelector{Kind: "Deployment"}, Paths: []string{"/spec/replicas"}}, `"replicas":3,`},
		"an annotation":    {v1alpha1.IgnoreRule{Target: v1alpha1.ObjectSelector{Kind: "Deployment", Name: "web"}, Paths: []string{"/metadata/annotations/a~1b"}}, `"a/b":"x",`},
		"an image":         {v1alpha1.IgnoreRule{Target: v1alpha1.ObjectSelector{Group: "apps", Kind: "Deployment"}, Paths: []string{"/spec/template/spec/containers/1/image"}}, `"image":"side:1",`},
		"an item":          {v1alpha1.IgnoreRule{Target: v1alpha1.ObjectSelector{Kind: "Deployment", Namespace: "shop"}, Paths: []string{"/spec/template/spec/containers/1"}}, `,{"image":"side:1","name":"side"}`},
		"nothing there":    {v1alpha1.IgnoreRule{Target: v1alpha1.ObjectSelector{Kind: "Deployment"}, Paths: []string{"/spec/x/y", "/spec/template/spec/containers/9", "/spec/replicas/0"}}, ""},
		"another kind":     {v1alpha1.IgnoreRule{Target: v1alpha1.ObjectSelector{Kind: "StatefulSet"}, Paths: []string{"/spec/replicas"}}, ""},
		"another group":    {v1alpha1.IgnoreRule{Target: v1alpha1.ObjectSelector{Group: "extensions", Kind: "Deployment"}, Paths: []string{"/spec/replicas"}}, ""},
		"the name":         {v1alpha1.IgnoreRule{Target: v1alpha1.ObjectSelector{Kind: "Deployment"}, Paths: []string{"/metadata/name"}}, "error: spec.ignore[0]: /metadata/name cannot be left to others"},
		"whose it is":      {v1alpha1.IgnoreRule{Target: v1alpha1.ObjectSelector{Kind: "Deployment"}, Paths: []string{"/metadata/labels/slipway.dev~1application"}}, "error: spec.ignore[0]: /metadata/labels/"},
		"of a moved thing": {v1alpha1.IgnoreRule{Target: v1alpha1.ObjectSelector{Kind: "Deployment"}, Paths: []string{"/spec/replicas"}}, "error: apps/Deployment shop/web: a Rollout moves it"},
	} {
		t.Run(name, func(t *testing.T) {
			object := deployment(t)
			set, err := manifests.NewSet([]*unstructured.Unstructured{object})
			if err != nil {
				t.Fatal(err)
			}
			before, _ := json.Marshal(plan.Labelled(object, "shop"))
			ref := manifests.RefOf(object)
			in := plan.In{Application: "shop", Want: set, Seen: plan.Observed{ref: {State: plan.Absent}}, Ignore: []v1alpha1.IgnoreRule{c.rule}}
			if name == "of a moved thing" {
				in.Bundled = map[manifests.Ref]bool{ref: true}
			}
			p, err := plan.Compute(in)
			if want, is := strings.CutPrefix(c.want, "error: "); is {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("got %v, want %s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			action := p.Actions()[0]
			got, _ := json.Marshal(action.Object)
			if string(got) != strings.Replace(string(before), c.want, "", 1) {
				t.Errorf("got %s\nwant without %s", got, c.want)
			}
			if (action.Initial != nil) != (c.want != "") {
				t.Errorf("created from %v", action.Initial)
			}
			if after, _ := json.Marshal(plan.Labelled(deployment(t), "shop")); string(after) != string(before) {
				t.Error("the Set was changed")
			}
			// Once it is there, it is as it should be.
			in.Owned = plan.Inventory{ref: {Version: "v1", UID: "u1", Want: action.Want, Fields: "f1"}}
			in.Seen[ref] = live(nil)
			if p, err = plan.Compute(in); err != nil || !p.Empty() {
				t.Errorf("%v\n%s", err, p)
			}
			in.Seen[ref] = live(map[string]string{"fields": "f2"})
			if p, err = plan.Compute(in); err != nil || p.Actions()[0].Initial != nil || p.Actions()[0].Shared != (c.want != "") {
				t.Errorf("%v\n%s", err, p)
			}
		})
	}
}

// Rules may name the values of a Secret as Git has them; they are applied as data.
func TestIgnoreOfStringData(t *testing.T) {
	secret := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "keys", "namespace": "shop"}, "stringData": map[string]any{"ours": "1", "theirs": "2"},
	}}
	set, err := manifests.NewSet([]*unstructured.Unstructured{secret})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/stringData/theirs", "/data/theirs"} {
		p, err := plan.Compute(plan.In{
			Application: "shop", Want: set, Seen: plan.Observed{manifests.RefOf(secret): {State: plan.Absent}},
			Ignore: []v1alpha1.IgnoreRule{{Target: v1alpha1.ObjectSelector{Kind: "Secret"}, Paths: []string{path}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := json.Marshal(p.Actions()[0].Object.Object["data"]); string(got) != `{"ours":"MQ=="}` {
			t.Errorf("%s: data %s", path, got)
		}
	}
}
