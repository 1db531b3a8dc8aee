package manifests_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/manifests"
)

func setOf(t *testing.T, documents ...string) manifests.Set {
	t.Helper()
	var objects []*unstructured.Unstructured
	for _, d := range documents {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(d), &object.Object); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, object)
	}
	set, err := manifests.NewSet(objects)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

const settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: shop}\ndata: {currency: "

func TestDiff(t *testing.T) {
	const account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: shop, namespace: shop}\n"
	got, err := manifests.Diff(setOf(t, settings+"EUR}\n", account), setOf(t, settings+"USD}\n", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `--- ConfigMap shop/settings
+++ ConfigMap shop/settings
@@ -1,6 +1,6 @@
 apiVersion: v1
 data:
-  currency: EUR
+  currency: USD
 kind: ConfigMap
 metadata:
   name: settings
--- /dev/null
+++ Namespace shop
@@ -0,0 +1,4 @@
+apiVersion: v1
+kind: Namespace
+metadata:
+  name: shop
--- ServiceAccount shop/shop
+++ /dev/null
@@ -1,5 +0,0 @@
-apiVersion: v1
-kind: ServiceAccount
-metadata:
-  name: shop
-  namespace: shop
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if same, err := manifests.Diff(setOf(t, account), setOf(t, account)); err != nil || same != "" {
		t.Errorf("%q, %v", same, err)
	}
}

func TestDiffMasksSecrets(t *testing.T) {
	secret := func(fields string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: login, namespace: shop}\n" + fields
	}
	for name, c := range map[string]struct{ from, to, want string }{
		"changed":    {"data: {password: aHVudGVyMg==, user: cm9iaW4=}", "data: {password: c3dvcmRmaXNo, user: cm9iaW4=}", "+  password: (masked, another value)"},
		"as text":    {"stringData: {password: hunter2}", "stringData: {password: swordfish}", "+  password: (masked, another value)"},
		"added":      {"data: {user: cm9iaW4=}", "data: {user: cm9iaW4=, password: aHVudGVyMg==}", "+  password: (masked, another value)"},
		"taken out":  {"data: {user: cm9iaW4=, password: aHVudGVyMg==}", "data: {user: cm9iaW4=}", "-  password: (masked)"},
		"wrong form": {"data: sesame", "data: {password: aHVudGVyMg==}", "+  password: (masked, another value)"},
	} {
		got, err := manifests.Diff(setOf(t, secret(c.from)), setOf(t, secret(c.to)))
		if err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
		for _, value := range []string{"aHVudGVyMg==", "c3dvcmRmaXNo", "hunter2", "swordfish", "cm9iaW4=", "sesame"} {
			if strings.Contains(got, value) {
				t.Errorf("%s: the diff tells %s:\n%s", name, value, got)
			}
		}
	}
	created, err := manifests.Diff(manifests.Set{}, setOf(t, secret("data: {password: aHVudGVyMg==}")))
	if err != nil || strings.Contains(created, "aHVudGVyMg==") || !strings.Contains(created, "+  password: (masked)") {
		t.Errorf("%v\n%s", err, created)
	}
}
