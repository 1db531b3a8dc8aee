package manifests

import (
	"encoding/base64"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// HasStringData reports whether object is a Secret with values in stringData, for EncodeData to move.
func HasStringData(object *unstructured.Unstructured) bool {
	text, _, err := unstructured.NestedStringMap(object.Object, "stringData")
	return err == nil && len(text) > 0 && isSecret(RefOf(object))
}

// EncodeData moves the stringData of a Secret into data. The API server does so too, but then nobody owns the keys by
// server-side apply: others could change them unseen, and keys that left would stay. Another object, and one whose stringData
// cannot be read, stays as it is.
func EncodeData(object *unstructured.Unstructured) {
	if !HasStringData(object) {
		return
	}
	text, _, _ := unstructured.NestedStringMap(object.Object, "stringData")
	data, _, err := unstructured.NestedMap(object.Object, "data")
	if err != nil {
		return
	}
	if data == nil {
		data = map[string]any{}
	}
	for key, value := range text {
		data[key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	object.Object["data"] = data
	delete(object.Object, "stringData")
}
