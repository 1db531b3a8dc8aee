package install

import (
	"path"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Folder, below what the agent starts from, holds the agent itself and all that it needs, where Bootstrap puts it.
const Folder = "slipway-system"

// Bootstrap returns the files, by path in the environment repo, from which a cluster is built and its agent manages itself.
// A commit that removes them, or the root Application that names them, takes nothing away: the agent would take away
// itself before it is done.
func Bootstrap(o Options) (map[string][]byte, error) {
	objects, err := Manifests(o)
	if err != nil {
		return nil, err
	}
	o, err = o.complete()
	if err != nil {
		return nil, err
	}
	var definitions, rest []*unstructured.Unstructured
	for _, object := range objects {
		annotations := object.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[manifests.AnnotationPrune] = "disabled"
		object.SetAnnotations(annotations)
		switch {
		case object.GetKind() == "CustomResourceDefinition":
			definitions = append(definitions, object)
			continue
		case isRoot(object):
			if err := unstructured.SetNestedField(object.Object, string(v1alpha1.DeletionOrphan), "spec", "deletionPolicy"); err != nil {
				return nil, err
			}
		}
		rest = append(rest, object)
	}
	files := map[string][]byte{}
	for name, content := range map[string][]*unstructured.Unstructured{"definitions.yaml": definitions, "agent.yaml": rest} {
		text, err := YAML(content)
		if err != nil {
			return nil, err
		}
		files[path.Join(o.Path, Folder, name)] = slices.Concat([]byte("# Written by `slipway bootstrap`; asking again writes it anew.\n"), text)
	}
	return files, nil
}

// isRoot says whether an object is the Application that everything follows from.
func isRoot(object *unstructured.Unstructured) bool {
	return object.GetKind() == "Application" && object.GroupVersionKind().Group == v1alpha1.Group
}

// Parse reads the objects of a file that Bootstrap returned.
func Parse(content []byte) ([]*unstructured.Unstructured, error) { return parse(content) }
