// Package install holds what a cluster needs before its agent can start from Git:
// CRDs, rights, and the two objects that say where Git is. `slipway install` prints
// or applies it; everything else comes from the environment repo.
package install

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/template"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

//go:embed crd/*.yaml
var crds embed.FS

//go:embed agent.yaml
var agent string

// SourceName is the GitSource of the environment repo.
const SourceName = "fleet"

// CRDs returns the custom resource definitions.
func CRDs() ([]*unstructured.Unstructured, error) {
	entries, err := crds.ReadDir("crd")
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, entry := range entries {
		content, err := crds.ReadFile("crd/" + entry.Name())
		if err != nil {
			return nil, err
		}
		found, err := parse(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", entry.Name(), err)
		}
		objects = append(objects, found...)
	}
	return objects, nil
}

// Manifests returns all objects in the order in which they are applied.
func Manifests(o Options) ([]*unstructured.Unstructured, error) {
	o, err := o.complete()
	if err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	objects, err := CRDs()
	if err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	parsed, err := template.New("agent.yaml").Option("missingkey=error").Parse(agent)
	if err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, o); err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	rest, err := parse(text.Bytes())
	if err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	return slices.Concat(objects, rest), nil
}

// AgentName is the name of everything that makes the agent, its rights included.
const AgentName = "slipway-agent"

// Agent returns kind and name of what makes the agent of a namespace, in the order in which it is taken away: the agent, then
// what is around it, then its rights. The namespace, the definitions and the objects that say where Git is are not among it.
func Agent(namespace string) ([]*unstructured.Unstructured, error) {
	all, err := Manifests(Options{Cluster: "any", URL: "https://git.example/any.git", Namespace: namespace, AgentImage: "any"})
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, object := range slices.Backward(all) {
		if kind := object.GetKind(); kind == "CustomResourceDefinition" || kind == "Namespace" || object.GroupVersionKind().Group == v1alpha1.Group {
			continue
		}
		bare := &unstructured.Unstructured{}
		bare.SetGroupVersionKind(object.GroupVersionKind())
		bare.SetNamespace(object.GetNamespace())
		bare.SetName(object.GetName())
		objects = append(objects, bare)
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int {
		return cmp.Compare(removedAs(a.GetKind()), removedAs(b.GetKind()))
	})
	return objects, nil
}

func removedAs(kind string) int {
	if kind == "Deployment" {
		return 0
	}
	return 1
}

// YAML writes objects as a stream of documents.
func YAML(objects []*unstructured.Unstructured) ([]byte, error) {
	var out bytes.Buffer
	for _, object := range objects {
		text, err := sigsyaml.Marshal(object.Object)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		out.WriteString("---\n")
		out.Write(text)
	}
	return out.Bytes(), nil
}

func parse(content []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}
