package render

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/provenance"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/slipway-cd/slipway/gitsource"
)

// kustomizeVersion is the release of the command that has the libraries of go.mod.
const kustomizeVersion = "v5.8.2"

func kustomizationNames() []string { return konfig.RecognizedKustomizationFileNames() }

// renderKustomization builds the kustomization in spec.Path, whose file is name.
// Bases may be anywhere in the repository.
func renderKustomization(repo *repository, spec Spec, name string) ([]located, error) {
	return kustomized(repo, kustomizeFiles{repo: repo}, mount(spec.Path), name)
}

// kustomized builds the kustomization in root; name is where its objects and mistakes are said to come from.
func kustomized(repo *repository, files filesys.FileSystem, root, name string) ([]located, error) {
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsNone // the parent restricts: nothing leaves the repository
	built, err := krusty.MakeKustomizer(options).Run(files, root)
	if repo.refusal != nil {
		return nil, repo.refusal
	}
	if err != nil {
		return nil, kustomizeError(repo, name, err)
	}
	objects := make([]located, 0, built.Size())
	for _, resource := range built.Resources() {
		encoded, err := resource.MarshalJSON()
		if err != nil {
			return nil, &Error{Path: name, Cause: err}
		}
		var content map[string]any
		if err := utiljson.Unmarshal(encoded, &content); err != nil {
			return nil, &Error{Path: name, Cause: err}
		}
		object := &unstructured.Unstructured{Object: content}
		honestManager(object)
		objects = append(objects, located{object: object, path: name})
	}
	return objects, nil
}

// honestManager corrects the label that the build metadata option managedByLabel sets. kustomize takes the version of
// whatever program it is part of, which here may be no label value ("(devel)", "v1.2.3+dirty") and would be another one in
// each release of Slipway.
func honestManager(object *unstructured.Unstructured) {
	labels := object.GetLabels()
	if labels[konfig.ManagedbyLabelKey] == "kustomize-"+provenance.GetProvenance().Semver() {
		labels[konfig.ManagedbyLabelKey] = "kustomize-" + kustomizeVersion
		object.SetLabels(labels)
	}
}

// kustomizeError says what is wrong and where. kustomize wraps each cause in all
// that it tried, so a file that does not parse is looked for first.
func kustomizeError(repo *repository, name string, err error) error {
	for _, one := range repo.files {
		if !isManifest(one.path) {
			continue
		}
		for _, document := range splitDocuments(one.content) {
			var node kyaml.Node
			if parseErr := kyaml.Unmarshal(document.content, &node); parseErr != nil {
				return yamlError(one.path, document.line, parseErr)
			}
		}
	}
	text := strings.ReplaceAll(err.Error(), mountPoint+"/", "")
	text = strings.ReplaceAll(text, mountPoint, ".")
	text = strings.ReplaceAll(text, overlayPoint, "the Application's overlay")
	if _, cycle, found := strings.Cut(text, "cycle detected: "); found {
		return &Error{Path: name, Cause: limitText("endless recursion: " + cycle)}
	}
	// The innermost cause stands last, after what was tried before it.
	text = regexp.MustCompile(`accumulation err='.*?': `).ReplaceAllString(text, "")
	return &Error{Path: name, Cause: errors.New(text)}
}

// checkKustomization refuses in the kustomization at name what this version
// does not honour, and entries that lead nowhere, with their lines.
func checkKustomization(repo *repository, name string, content []byte) error {
	var document kyaml.Node
	if err := kyaml.NewDecoder(bytes.NewReader(content)).Decode(&document); err != nil || len(document.Content) == 0 {
		return nil // kustomize reports it
	}
	root := document.Content[0]
	if root.Kind != kyaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if err := checkField(repo, name, root.Content[i], root.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func checkField(repo *repository, name string, key, value *kyaml.Node) error {
	switch key.Value {
	case "helmCharts", "helmGlobals", "helmChartInflationGenerator":
		return &Error{Path: name, Line: key.Line, Cause: fmt.Errorf(
			"%s is not supported (render the chart with spec.helm of an Application of its own)", key.Value,
		)}
	}
	for _, reference := range references(key.Value, value) {
		if isRemote(reference.Value) {
			return &Error{Path: name, Line: reference.Line, Cause: fmt.Errorf(
				"%s: remote entry %q is not fetched (commit a copy to the repository)", key.Value, reference.Value,
			)}
		}
		if key.Value != "resources" && key.Value != "bases" && key.Value != "components" {
			continue
		}
		target := path.Join(mount(path.Dir(name)), reference.Value)
		inside, ok := unmount(target)
		if !ok || path.IsAbs(reference.Value) {
			return &Error{Path: name, Line: reference.Line, Cause: fmt.Errorf("%s: %q leaves the repository", key.Value, reference.Value)}
		}
		_, kind, err := repo.stat(inside)
		if err != nil {
			return err
		}
		if kind == gitsource.Absent {
			return &Error{Path: name, Line: reference.Line, Cause: fmt.Errorf("%s: %q is not in the repository", key.Value, reference.Value)}
		}
	}
	return nil
}

// references returns the scalars of a field that name files or folders.
func references(field string, value *kyaml.Node) []*kyaml.Node {
	var found []*kyaml.Node
	switch field {
	case "resources", "bases", "components", "crds", "configurations", "generators", "transformers", "validators", "patchesStrategicMerge":
		found = value.Content
	case "patches", "patchesJson6902", "replacements", "configMapGenerator", "secretGenerator":
		for _, item := range value.Content {
			found = append(found, pathsOf(item)...)
		}
	case "openapi":
		found = pathsOf(value)
	}
	var scalars []*kyaml.Node
	for _, node := range found {
		if node.Kind == kyaml.ScalarNode && !strings.Contains(node.Value, "\n") {
			scalars = append(scalars, node)
		}
	}
	return scalars
}

func pathsOf(item *kyaml.Node) []*kyaml.Node {
	var found []*kyaml.Node
	if item.Kind != kyaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(item.Content); i += 2 {
		switch item.Content[i].Value {
		case "path", "env":
			found = append(found, item.Content[i+1])
		case "files", "envs":
			found = append(found, item.Content[i+1].Content...)
		}
	}
	return found
}

// isRemote recognises what kustomize would fetch or clone.
func isRemote(reference string) bool {
	lower := strings.ToLower(reference)
	for _, mark := range []string{"://", "git::", "?ref=", "?version=", "?timeout=", "?submodules="} {
		if strings.Contains(lower, mark) {
			return true
		}
	}
	return strings.HasPrefix(lower, "github.com/") || strings.HasPrefix(lower, "github.com:") || regexp.MustCompile(`^[^/]+@[^/]+:`).MatchString(lower)
}
