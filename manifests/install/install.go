// Package install holds what a cluster needs before its agent can start from Git:
// CRDs, rights, and the two objects that say where Git is. `slipway install` prints
// or applies it; everything else comes from the environment repo.
package install

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"slices"
	"text/template"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

//go:embed crd/*.yaml
var crds embed.FS

//go:embed agent.yaml
var agent string

// SourceName is the GitSource of the environment repo.
const SourceName = "fleet"

// Options say which cluster follows which repository.
type Options struct {
	Cluster   string // name of the cluster; also that of its root Application
	URL       string // of the environment repo: http or https, without credentials
	Branch    string // default main
	Path      string // of what the agent starts from; default clusters/CLUSTER
	Namespace string // of the Applications; default slipway-system
	// SecretName is a Secret with username and password for the repository; empty for none.
	SecretName string
	// AgentUser is the API server's name for an agent that runs outside of the cluster; empty for none.
	AgentUser string
	// AgentImage runs the agent in the cluster; empty for an agent outside.
	AgentImage string
	// Server is the URL of slipway-server; empty for an agent that pushes reverts itself.
	Server string
}

func (o Options) complete() (Options, error) {
	if o.Branch == "" {
		o.Branch = "main"
	}
	if o.Namespace == "" {
		o.Namespace = "slipway-system"
	}
	if o.Path == "" {
		o.Path = path.Join("clusters", o.Cluster)
	}
	var errs []error
	for field, value := range map[string]string{"cluster": o.Cluster, "namespace": o.Namespace} {
		if problems := validation.IsDNS1123Label(value); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("%s %q: %s", field, value, problems[0]))
		}
	}
	parsed, err := url.Parse(o.URL)
	switch {
	case err != nil, parsed.Host == "", parsed.Scheme != "http" && parsed.Scheme != "https":
		errs = append(errs, errors.New("url: want https://HOST/PATH of the environment repo"))
	case parsed.User != nil:
		errs = append(errs, errors.New("url: has credentials in it; put them into a Secret and name it"))
	}
	return o, errors.Join(errs...)
}

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
