package render

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"strings"

	"helm.sh/helm/v3/pkg/strvals"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

const defaultValuesKey = "values.yaml"

// chartValues merges the values files in order, then what ConfigMaps and
// Secrets hold in order, and the values of the Spec last.
func chartValues(repo *repository, spec Spec) (map[string]any, error) {
	values := map[string]any{}
	for _, name := range spec.Helm.ValuesFiles {
		one, err := valuesFile(repo, name)
		if err != nil {
			return nil, err
		}
		values = merged(values, one)
	}
	for i, from := range spec.Helm.ValuesFrom {
		var err error
		if values, err = valuesFrom(values, spec, fmt.Sprintf("spec.helm.valuesFrom[%d]", i), from); err != nil {
			return nil, err
		}
	}
	if spec.Helm.Values != nil {
		var last map[string]any
		if err := json.Unmarshal(spec.Helm.Values.Raw, &last); err != nil {
			return nil, &Error{Path: spec.Path, Cause: errors.New("spec.helm.values is not a mapping")}
		}
		values = merged(values, last)
	}
	return values, nil
}

func valuesFile(repo *repository, name string) (map[string]any, error) {
	clean := path.Clean(name)
	if !fs.ValidPath(clean) {
		return nil, &Error{Path: name, Cause: errors.New("values file leaves the repository (it is relative to its root)")}
	}
	content, found, err := repo.read(clean)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &Error{Path: clean, Cause: errors.New("values file is not in the repository (the path is relative to its root)")}
	}
	return mappingOf(clean, content)
}

func mappingOf(name string, content []byte) (map[string]any, error) {
	if err := checkAliases(content); err != nil {
		return nil, &Error{Path: name, Cause: err}
	}
	var mapping map[string]any
	if err := yaml.Unmarshal(content, &mapping); err != nil {
		return nil, yamlError(name, 1, err)
	}
	return mapping, nil
}

// valuesFrom puts what from names over values.
func valuesFrom(values map[string]any, spec Spec, field string, from v1alpha1.ValuesReference) (map[string]any, error) {
	data, found, err := spec.input(field, v1alpha1.InputReference{Kind: from.Kind, Name: from.Name, Optional: from.Optional})
	if err != nil || !found {
		return values, err
	}
	key := cmp.Or(from.Key, defaultValuesKey)
	content, found := data[key]
	switch {
	case !found && from.Optional:
		return values, nil
	case !found:
		return nil, &Error{Path: spec.Path, Cause: fmt.Errorf("%s: %s %s has no key %s", field, from.Kind, from.Name, key)}
	case from.TargetPath != "":
		if err := setAt(values, from.TargetPath, string(content)); err != nil {
			return nil, &Error{Path: spec.Path, Cause: fmt.Errorf("%s: targetPath %s: %w", field, from.TargetPath, err)}
		}
		return values, nil
	}
	one, err := mappingOf(spec.Path, content)
	var located *Error
	if errors.As(err, &located) {
		return nil, &Error{Path: spec.Path, Cause: fmt.Errorf("%s: line %d of %s %s, key %s: %w", field, max(located.Line, 1), from.Kind, from.Name, key, located.Cause)}
	}
	return merged(values, one), err
}

// setAt sets one value as helm --set does, but takes no part of it for syntax.
func setAt(values map[string]any, target, text string) error {
	if strings.ContainsAny(target, "=,{} \t\n") {
		return errors.New("is not a path of keys and indexes (database.password, hosts[0])")
	}
	if literal, isText := plainScalar(text).(string); isText {
		return strvals.ParseLiteralInto(target+"="+literal, values)
	}
	return strvals.ParseInto(target+"="+text, values)
}

// merged returns base with over on top. A null in over stays: it removes the chart's default.
func merged(base, over map[string]any) map[string]any {
	result := maps.Clone(base)
	for key, value := range over {
		below, isMap := result[key].(map[string]any)
		above, both := value.(map[string]any)
		if isMap && both {
			value = merged(below, above)
		}
		result[key] = value
	}
	return result
}
