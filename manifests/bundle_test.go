package manifests_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
)

func bundleObject(apiVersion, kind, namespace, name string, more map[string]any) *unstructured.Unstructured {
	content := map[string]any{
		"apiVersion": apiVersion, "kind": kind,
		"metadata": map[string]any{"namespace": namespace, "name": name},
	}
	for key, value := range more {
		content[key] = value
	}
	return &unstructured.Unstructured{Object: content}
}

var webRollout = manifests.Ref{Group: "slipway.dev", Kind: "Rollout", Namespace: "shop", Name: "web"}

func TestBundleRoundTrip(t *testing.T) {
	objects := []*unstructured.Unstructured{
		bundleObject("v1", "Secret", "shop", "b", map[string]any{"stringData": map[string]any{"key": "hunter2"}}),
		bundleObject("apps/v1", "Deployment", "shop", "web", map[string]any{"spec": map[string]any{"replicas": int64(3)}}),
		bundleObject("v1", "Secret", "shop", "a", nil),
		bundleObject("v1", "ConfigMap", "shop", "web", nil),
	}
	data, secret, digest, err := manifests.PackBundle(webRollout, objects)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("hunter2")) {
		t.Error("a secret value is in the ControllerRevision")
	}
	got, err := manifests.UnpackBundle(data, secret)
	if err != nil {
		t.Fatal(err)
	}
	set, err := manifests.NewSet(got)
	if err != nil {
		t.Fatal(err)
	}
	if set.Digest != digest || len(got) != 4 {
		t.Errorf("got %d objects with digest %s, want 4 with %s", len(got), set.Digest, digest)
	}
	if _, is := got[3].Object["spec"].(map[string]any)["replicas"].(int64); !is {
		t.Errorf("a whole number did not stay one: %T", got[3].Object["spec"].(map[string]any)["replicas"])
	}
	if _, err := manifests.UnpackBundle(data, nil); !errors.Is(err, manifests.ErrBundleSecret) {
		t.Errorf("without the Secret: got %v, want ErrBundleSecret", err)
	}
}

func TestBundleWithoutSecrets(t *testing.T) {
	data, secret, _, err := manifests.PackBundle(webRollout, []*unstructured.Unstructured{bundleObject("v1", "Service", "shop", "web", nil)})
	if err != nil || secret != nil {
		t.Fatalf("got secret %q, error %v", secret, err)
	}
	if got, err := manifests.UnpackBundle(data, nil); err != nil || len(got) != 1 {
		t.Errorf("got %d objects, error %v", len(got), err)
	}
}

func TestBundleRefusesOtherNamespaces(t *testing.T) {
	_, _, _, err := manifests.PackBundle(webRollout, []*unstructured.Unstructured{bundleObject("v1", "Service", "bank", "web", nil)})
	if err == nil || !strings.Contains(err.Error(), "another namespace") {
		t.Errorf("got %v", err)
	}
}

func TestBundleName(t *testing.T) {
	digest := manifests.DigestOf([]byte("x"))
	if got := manifests.BundleName(webRollout, digest); got != "web-"+digest.Short() {
		t.Errorf("got %q", got)
	}
	long := webRollout
	long.Name = strings.Repeat("a", 253)
	if got := manifests.BundleName(long, digest); len(got) > 253 {
		t.Errorf("%d characters are more than a name may have", len(got))
	}
}

func FuzzUnpackBundle(f *testing.F) {
	data, secret, _, err := manifests.PackBundle(webRollout, []*unstructured.Unstructured{
		bundleObject("v1", "Secret", "shop", "a", nil), bundleObject("v1", "ConfigMap", "shop", "web", nil),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, secret)
	f.Add([]byte(`{"objects":[null]}`), []byte(`[{}]`))
	f.Fuzz(func(t *testing.T, data, secret []byte) {
		objects, err := manifests.UnpackBundle(data, secret)
		if err != nil {
			return
		}
		if _, err := manifests.NewSet(objects); err != nil {
			t.Errorf("unpacked what is no Set: %v", err)
		}
	})
}
