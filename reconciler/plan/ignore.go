package plan

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// never are the fields that nobody else can set: without them an object is not this one, or not ours.
var never = []string{"/apiVersion", "/kind", "/metadata", "/metadata/name", "/metadata/namespace", "/metadata/labels", labelPointer}

var labelPointer = "/metadata/labels/" + strings.ReplaceAll(manifests.LabelApplication, "/", "~1")

// ignored returns object without the fields that rules leave to others, itself when they say nothing about it.
func ignored(rules []v1alpha1.IgnoreRule, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	ref := manifests.RefOf(object)
	stripped := object
	for i, rule := range rules {
		if !selects(rule.Target, ref) {
			continue
		}
		for _, path := range rule.Paths {
			if slices.Contains(never, path) {
				return nil, fmt.Errorf("spec.ignore[%d]: %s cannot be left to others", i, path)
			}
			if stripped == object {
				stripped = object.DeepCopy()
			}
			if key, text := strings.CutPrefix(path, "/stringData"); text && ref.Group == "" && ref.Kind == "Secret" {
				path = "/data" + key // where it is by now: see manifests.EncodeData
			}
			stripped.Object, _ = without(stripped.Object, pointer(path)).(map[string]any)
		}
	}
	if reflect.DeepEqual(stripped.Object, object.Object) {
		return object, nil
	}
	return stripped, nil
}

func selects(target v1alpha1.ObjectSelector, ref manifests.Ref) bool {
	fits := func(want, got string) bool { return want == "" || want == got }
	return target.Kind == ref.Kind && fits(target.Group, ref.Group) && fits(target.Namespace, ref.Namespace) && fits(target.Name, ref.Name)
}

// pointer splits a JSON pointer (RFC 6901).
func pointer(path string) []string {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i := range parts {
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(parts[i], "~1", "/"), "~0", "~")
	}
	return parts
}

// without takes the field at path out of value; what is not there needs nothing.
func without(value any, path []string) any {
	switch v := value.(type) {
	case map[string]any:
		child, found := v[path[0]]
		if !found {
			return v
		}
		if len(path) == 1 {
			delete(v, path[0])
			return v
		}
		v[path[0]] = without(child, path[1:])
	case []any:
		i, err := strconv.Atoi(path[0])
		if err != nil || i < 0 || i >= len(v) {
			return v
		}
		if len(path) == 1 {
			return slices.Delete(v, i, i+1)
		}
		v[i] = without(v[i], path[1:])
	}
	return value
}
