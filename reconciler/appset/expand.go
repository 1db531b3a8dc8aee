package appset

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Entry is what there shall be an Application for.
type Entry struct {
	Origin    string            // for people: "directory apps/shop/production"
	Variables map[string]string // without the braces: "path", "name", "values.region"
	Preview   *Preview          // nil where it is none
}

// List returns the entries of a list.
func List(list []v1alpha1.ApplicationSetEntry) []Entry {
	entries := make([]Entry, 0, len(list))
	for _, item := range list {
		variables := map[string]string{"name": item.Name}
		for key, value := range item.Values {
			variables["values."+key] = value
		}
		entries = append(entries, Entry{Origin: "list entry " + item.Name, Variables: variables})
	}
	return entries
}

// Application is one that an Entry asks for.
type Application struct {
	Name        string
	Origin      string
	Labels      map[string]string
	Annotations map[string]string
	Spec        v1alpha1.ApplicationSpec
	Preview     *Preview // nil where it is none
}

// Failure is an Entry that no Application can be made of.
type Failure struct {
	Origin string
	Name   string // of the Application; empty where it is not known
	Err    error
	// Disposable is an entry that asks for a preview.
	Disposable bool
}

// Expansion is what the entries of a set come to.
type Expansion struct {
	Applications []Application // by name, no two of one name
	Failures     []Failure     // by origin
}

// Expand fills in the template for each entry. Two entries that come to one name both fail, naming each other.
func Expand(template v1alpha1.ApplicationTemplate, entries []Entry) Expansion {
	if template.Metadata.Name == "" {
		template.Metadata.Name = "{{name}}"
	}
	var out Expansion
	failed := func(entry Entry, name string, err error) {
		out.Failures = append(out.Failures, Failure{Origin: entry.Origin, Name: name, Err: err, Disposable: entry.Preview != nil})
	}
	named := map[string][]Entry{}
	for _, entry := range entries {
		name, err := nameOf(template, entry)
		if err != nil {
			failed(entry, name, err)
			continue
		}
		named[name] = append(named[name], entry)
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		claimants := named[name]
		for i, entry := range claimants {
			if len(claimants) > 1 {
				other := claimants[(i+1)%len(claimants)].Origin
				err := fmt.Errorf("%s and %s both come to the name %q; tell them apart in template.metadata.name", entry.Origin, other, name)
				failed(entry, name, err)
				continue
			}
			app, err := fill(template, entry)
			if err == nil && entry.Preview != nil {
				err = app.preview(name, *entry.Preview)
			}
			if err != nil {
				failed(entry, name, err)
				continue
			}
			app.Name, app.Origin = name, entry.Origin
			out.Applications = append(out.Applications, app)
		}
	}
	slices.SortStableFunc(out.Failures, func(a, b Failure) int { return strings.Compare(a.Origin, b.Origin) })
	return out
}

// nameOf is the name of the Application of an entry, also beside an error if that is all that is wrong with it. It becomes
// the value of a label on all objects.
func nameOf(template v1alpha1.ApplicationTemplate, entry Entry) (string, error) {
	name, err := replace(template.Metadata.Name, entry.Variables)
	if err != nil {
		return "", fmt.Errorf("template.metadata.name: %w", err)
	}
	if len(name) > validation.LabelValueMaxLength {
		return name, fmt.Errorf("the name %q has %d characters, and at most %d are allowed", name, len(name), validation.LabelValueMaxLength)
	}
	if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 {
		return name, fmt.Errorf("the name %q: want lower-case letters, digits, - and ., with a letter or digit at both ends", name)
	}
	return name, nil
}

// fill replaces the variables in all strings of the template. It works on JSON, so that every field is reached.
func fill(template v1alpha1.ApplicationTemplate, entry Entry) (Application, error) {
	tree, err := generic(template)
	if err != nil {
		return Application{}, err
	}
	filled, err := replaceAll(tree, "template", entry.Variables)
	if err != nil {
		return Application{}, err
	}
	content, err := json.Marshal(filled)
	if err != nil {
		return Application{}, err
	}
	var done v1alpha1.ApplicationTemplate
	if err := json.Unmarshal(content, &done); err != nil {
		return Application{}, fmt.Errorf("template: %w", err)
	}
	for key, value := range done.Metadata.Labels {
		if wrong := validation.IsValidLabelValue(value); len(wrong) > 0 {
			return Application{}, fmt.Errorf("template.metadata.labels.%s: %q: %s", key, value, wrong[0])
		}
	}
	return Application{Labels: done.Metadata.Labels, Annotations: done.Metadata.Annotations, Spec: done.Spec}, nil
}

// generic turns a value into maps, slices and strings, as JSON has them.
func generic(value any) (any, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var tree any
	err = json.Unmarshal(content, &tree)
	return tree, err
}
