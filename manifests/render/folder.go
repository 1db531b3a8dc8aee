package render

import (
	"errors"
	"path"
	"slices"
	"strings"
)

// renderFolder reads every .yaml, .yml and .json file below spec.Path, sorted.
// Files and folders whose names start with a dot are left out.
func renderFolder(repo *repository, spec Spec) ([]located, error) {
	var objects []located
	found := false
	hidden := func(name string, _ bool) bool { return strings.HasPrefix(path.Base(name), ".") }
	err := repo.walk(spec.Path, hidden, func(name string) error {
		if slices.Contains(kustomizationNames(), path.Base(name)) {
			return &Error{Path: name, Cause: errors.New("a kustomization within a plain folder: name its folder in spec.path, or in a kustomization above it")}
		}
		if !isManifest(name) {
			return nil
		}
		found = true
		content, _, err := repo.read(name)
		if err != nil {
			return err
		}
		decoded, err := decodeObjects(name, content, true)
		if err != nil {
			return err
		}
		if len(objects)+len(decoded) > maxObjects {
			return &Error{Path: name, Cause: limitf("more than %d objects: the limit", maxObjects)}
		}
		objects = append(objects, decoded...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &Error{Path: spec.Path, Cause: errors.New("holds no kustomization and no .yaml, .yml or .json file (see spec.path)")}
	}
	return objects, nil
}

func isManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(name))
}
