package manifests

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Diff returns what differs between two Sets as a unified diff of YAML, in the order of Refs; empty if nothing does. Of
// values in Secrets it says that they changed, never what they are.
func Diff(from, to Set) (string, error) {
	before, after := byRef(from), byRef(to)
	refs := maps.Clone(before)
	maps.Copy(refs, after)
	var b strings.Builder
	for _, ref := range slices.SortedFunc(maps.Keys(refs), Ref.Compare) {
		old, err := shown(before[ref], nil)
		if err != nil {
			return "", fmt.Errorf("%s: %w", ref, err)
		}
		new, err := shown(after[ref], before[ref])
		if err != nil {
			return "", fmt.Errorf("%s: %w", ref, err)
		}
		b.WriteString(udiff.Unified(side(ref, before[ref]), side(ref, after[ref]), old, new))
	}
	return b.String(), nil
}

func byRef(s Set) map[Ref]*unstructured.Unstructured {
	out := make(map[Ref]*unstructured.Unstructured, len(s.Objects))
	for _, object := range s.Objects {
		out[RefOf(object)] = object
	}
	return out
}

// side is the name of one side of a diff, with git's word for what is not there.
func side(ref Ref, object *unstructured.Unstructured) string {
	if object == nil {
		return "/dev/null"
	}
	return ref.String()
}

// shown is an object as YAML without the values of a Secret; those that differ from before's say so.
func shown(object, before *unstructured.Unstructured) (string, error) {
	if object == nil {
		return "", nil
	}
	content := object.Object
	if RefOf(object).GroupKind().String() == "Secret" {
		masked := object.DeepCopy()
		for _, field := range []string{"data", "stringData"} {
			values, is := masked.Object[field].(map[string]any)
			if !is && masked.Object[field] != nil {
				masked.Object[field] = "(masked)" // no map, so no API server takes it; it may be secret all the same
			}
			for key, value := range values {
				values[key] = "(masked)"
				if before != nil && !reflect.DeepEqual(valueOf(before, field, key), value) {
					values[key] = "(masked, another value)"
				}
			}
		}
		content = masked.Object
	}
	text, err := yaml.Marshal(content)
	return string(text), err
}

// valueOf is nil also where the field has another form than it should.
func valueOf(object *unstructured.Unstructured, field, key string) any {
	values, _ := object.Object[field].(map[string]any)
	return values[key]
}
