package appset

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Object is the Application as it is applied for a set. One that is preserved has no owner reference: with one the API
// server's garbage collector would take it along with the set.
func (a Application) Object(set *v1alpha1.ApplicationSet) (*unstructured.Unstructured, error) {
	labels := map[string]string{}
	maps.Copy(labels, a.Labels)
	labels[manifests.LabelApplicationSet] = set.Name
	delete(labels, manifests.LabelPullRequest)
	if a.Preview != nil {
		labels[manifests.LabelPullRequest] = a.Preview.number()
	}
	app := v1alpha1.Application{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: "Application"},
		ObjectMeta: metav1.ObjectMeta{Namespace: set.Namespace, Name: a.Name, Labels: labels, Annotations: map[string]string{}},
		Spec:       a.Spec,
	}
	maps.Copy(app.Annotations, a.Annotations)
	delete(app.Annotations, manifests.AnnotationTemplated)
	if !set.Spec.Preserve {
		controls := true
		app.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: v1alpha1.GroupVersion().String(), Kind: "ApplicationSet", Name: set.Name, UID: set.UID, Controller: &controls,
		}}
	}
	object, err := templated(&app)
	if err != nil {
		return nil, fmt.Errorf("application %s: %w", a.Name, err)
	}
	return object, nil
}

// templated is an object as it is sent: without what is not asked for, and with the digest of all that is.
func templated(typed any) (*unstructured.Unstructured, error) {
	content, err := json.Marshal(typed)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(content); err != nil {
		return nil, err
	}
	delete(object.Object, "status")
	unstructured.RemoveNestedField(object.Object, "metadata", "creationTimestamp")
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[manifests.AnnotationTemplated] = string(manifests.DigestOf(content))
	object.SetAnnotations(annotations)
	return object, nil
}

// keyed are the lists of an Application whose items others may add to, with what tells the items apart.
var keyed = map[string]string{"ownerReferences": "uid", "dependsOn": "name"}

// Holds reports whether live, an Application or the GitSource of one, has all that want says. What others have added to it does not count: a field that left the
// template is told from those by the digest in AnnotationTemplated, which is part of want.
func Holds(live any, want *unstructured.Unstructured) (bool, error) {
	has, err := generic(live)
	if err != nil {
		return false, err
	}
	asked, err := generic(want.Object)
	if err != nil {
		return false, err
	}
	for _, object := range []any{has, asked} {
		if fields, ok := object.(map[string]any); ok {
			delete(fields, "apiVersion") // typed reads leave these out
			delete(fields, "kind")
		}
	}
	return contains(has, asked, ""), nil
}

func contains(has, want any, field string) bool {
	switch want := want.(type) {
	case map[string]any:
		fields, ok := has.(map[string]any)
		if !ok {
			return false
		}
		for name, value := range want {
			if !contains(fields[name], value, name) {
				return false
			}
		}
		return true
	case []any:
		items, ok := has.([]any)
		if !ok {
			return false
		}
		if keyed[field] == "" {
			return reflect.DeepEqual(items, want)
		}
		for _, item := range want {
			if !containsItem(items, item, keyed[field]) {
				return false
			}
		}
		return true
	}
	return has == want
}

func containsItem(items []any, want any, key string) bool {
	fields, ok := want.(map[string]any)
	if !ok {
		return false
	}
	for _, item := range items {
		if other, ok := item.(map[string]any); ok && other[key] == fields[key] {
			return contains(item, want, "")
		}
	}
	return false
}
