package manifests_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
)

func object(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	metadata := map[string]any{}
	for key, value := range map[string]string{"namespace": namespace, "name": name} {
		if value != "" {
			metadata[key] = value
		}
	}
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": metadata}}
}

func TestNewSetRefuses(t *testing.T) {
	for _, test := range []struct {
		name    string
		objects []*unstructured.Unstructured
		want    string
	}{
		{"no kind", []*unstructured.Unstructured{object("v1", "", "", "a")}, "apiVersion and kind are required"},
		{"no apiVersion", []*unstructured.Unstructured{object("", "Pod", "", "a")}, "apiVersion and kind are required"},
		{"no name", []*unstructured.Unstructured{object("v1", "Pod", "n", "")}, "metadata.name is required"},
		{"twice", []*unstructured.Unstructured{object("v1", "Pod", "n", "a"), object("v1", "Pod", "n", "a")}, "Pod n/a: rendered twice"},
		{"twice in two versions", []*unstructured.Unstructured{object("apps/v1", "Deployment", "n", "a"), object("apps/v1beta1", "Deployment", "n", "a")}, "apps/Deployment n/a: rendered twice"},
		{"not JSON", []*unstructured.Unstructured{{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "a"}, "x": make(chan int)}}}, "Pod a: cannot be encoded"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := manifests.NewSet(test.objects); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// The Digest tells contents apart and orders not; NewSet leaves its argument alone.
func TestSetIsIndependentOfOrder(t *testing.T) {
	objects := []*unstructured.Unstructured{
		object("v1", "Service", "n", "b"), object("v1", "Service", "m", "b"), object("v1", "Namespace", "", "n"),
		object("apps/v1", "Deployment", "n", "a"), object("apps/v1", "Deployment", "n", "b"),
	}
	want, err := manifests.NewSet(objects)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		shuffled := slices.Clone(objects)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		given := slices.Clone(shuffled)
		got, err := manifests.NewSet(shuffled)
		if err != nil || got.Digest != want.Digest {
			t.Fatalf("digest %s, want %s (%v)", got.Digest, want.Digest, err)
		}
		if !slices.Equal(shuffled, given) {
			t.Fatal("the argument was reordered")
		}
		if !slices.IsSortedFunc(got.Objects, func(a, b *unstructured.Unstructured) int {
			return manifests.RefOf(a).Compare(manifests.RefOf(b))
		}) {
			t.Fatal("not in order")
		}
	}
	changed := slices.Clone(objects)
	changed[0] = changed[0].DeepCopy()
	changed[0].SetLabels(map[string]string{"a": "b"})
	if other, err := manifests.NewSet(changed); err != nil || other.Digest == want.Digest {
		t.Errorf("a label does not change the digest (%v)", err)
	}
	if empty, err := manifests.NewSet(nil); err != nil || empty.Digest == "" || empty.Digest == want.Digest {
		t.Errorf("empty set: %s %v", empty.Digest, err)
	}
}

func TestFind(t *testing.T) {
	set, err := manifests.NewSet([]*unstructured.Unstructured{object("v1", "Service", "n", "b"), object("apps/v1", "Deployment", "n", "a")})
	if err != nil {
		t.Fatal(err)
	}
	if found := set.Find(manifests.Ref{Group: "apps", Kind: "Deployment", Namespace: "n", Name: "a"}); found == nil || found.GetName() != "a" {
		t.Errorf("found %v", found)
	}
	for _, ref := range []manifests.Ref{{}, {Group: "apps", Kind: "Deployment", Namespace: "m", Name: "a"}, {Kind: "Zebra", Name: "z"}} {
		if found := set.Find(ref); found != nil {
			t.Errorf("%v: found %v", ref, found)
		}
	}
}

func TestImages(t *testing.T) {
	containers := func(images ...string) []any {
		var list []any
		for _, image := range images {
			list = append(list, map[string]any{"name": "c-" + image, "image": image})
		}
		return list
	}
	pod := map[string]any{"containers": containers("web", "side"), "initContainers": containers("init")}
	deployment, job, bare, config := object("apps/v1", "Deployment", "n", "d"), object("batch/v1", "CronJob", "n", "j"),
		object("v1", "Pod", "n", "p"), object("v1", "ConfigMap", "n", "c")
	deployment.Object["spec"] = map[string]any{"template": map[string]any{"spec": pod}}
	job.Object["spec"] = map[string]any{"jobTemplate": map[string]any{"spec": map[string]any{"template": map[string]any{"spec": pod}}}}
	bare.Object["spec"] = map[string]any{"containers": containers("bare", ""), "volumes": []any{
		map[string]any{"name": "empty", "emptyDir": map[string]any{}},
		map[string]any{"name": "files", "image": map[string]any{"reference": "volume"}},
	}}
	config.Object["spec"] = "not a mapping"
	set, err := manifests.NewSet([]*unstructured.Unstructured{config, bare, job, deployment})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, use := range set.Images() {
		got = append(got, use.Object.String()+" "+use.Container+" "+use.Image)
	}
	want := []string{
		"Pod n/p c-bare bare", "Pod n/p files volume",
		"apps/Deployment n/d c-init init", "apps/Deployment n/d c-web web", "apps/Deployment n/d c-side side",
		"batch/CronJob n/j c-init init", "batch/CronJob n/j c-web web", "batch/CronJob n/j c-side side",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestNames(t *testing.T) {
	if got := manifests.RefOf(object("v1", "Namespace", "", "shop")).String(); got != "Namespace shop" {
		t.Error(got)
	}
	if got := manifests.DigestOf([]byte("hello")); got != "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" || got.Short() != "2cf24dba5fb0" {
		t.Error(got, got.Short())
	}
	if got := manifests.Digest("").Short(); got != "" {
		t.Error(got)
	}
}
