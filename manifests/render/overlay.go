package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/resid"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// The overlay stands beside the repository, so that no file of it can be in its place.
const (
	overlayPoint   = "/overlay"
	overlayObjects = "objects.yaml"
)

// overlaid builds a kustomization in memory of objects and what spec.Overlay says.
func overlaid(repo *repository, objects []located, spec Spec) ([]located, error) {
	if spec.Overlay.IsZero() || len(objects) == 0 {
		return objects, nil
	}
	for _, one := range objects {
		if err := metadataOf(one); err != nil {
			return nil, err
		}
	}
	kustomization, err := overlayOf(repo, spec)
	if err != nil {
		return nil, err
	}
	var rendered bytes.Buffer
	for _, one := range objects {
		content, err := json.Marshal(one.object.Object)
		if err != nil {
			return nil, one.err(err)
		}
		fmt.Fprintf(&rendered, "---\n%s\n", content)
	}
	memory := overlayFiles{kustomizeFiles{repo: repo}, map[string][]byte{
		"kustomization.yaml": kustomization, overlayObjects: rendered.Bytes(),
	}}
	return kustomized(repo, memory, overlayPoint, spec.Path)
}

// overlayOf returns the kustomization.
func overlayOf(repo *repository, spec Spec) ([]byte, error) {
	o := spec.Overlay
	k := types.Kustomization{
		TypeMeta:  types.TypeMeta{APIVersion: types.KustomizationVersion, Kind: types.KustomizationKind},
		Resources: []string{overlayObjects}, NamePrefix: o.NamePrefix,
	}
	for _, name := range o.Components {
		clean := path.Clean(name)
		_, kind, err := repo.stat(clean)
		if err != nil {
			return nil, err
		}
		if !fs.ValidPath(clean) || kind != gitsource.Directory {
			return nil, &Error{Path: spec.Path, Cause: fmt.Errorf("spec.components: %q is not a folder of the repository (it is relative to its root)", name)}
		}
		k.Components = append(k.Components, ".."+mount(clean))
	}
	for i, patch := range o.Patches {
		if err := checkAliases([]byte(patch.Patch)); err != nil {
			return nil, &Error{Path: spec.Path, Cause: fmt.Errorf("spec.patches[%d]: %w", i, err)}
		}
		k.Patches = append(k.Patches, types.Patch{Patch: patch.Patch, Target: selectorOf(patch.Target)})
	}
	if len(o.CommonLabels) > 0 {
		k.Labels = []types.Label{{Pairs: o.CommonLabels}}
	}
	if len(o.CommonAnnotations) > 0 {
		// The field commonAnnotations would reach into pod templates and restart what did not change.
		transformer, err := json.Marshal(map[string]any{
			"apiVersion": "builtin", "kind": "AnnotationsTransformer", "metadata": map[string]any{"name": "annotations"},
			"annotations": o.CommonAnnotations,
			"fieldSpecs":  []any{map[string]any{"path": "metadata/annotations", "create": true}},
		})
		if err != nil {
			return nil, err
		}
		k.Transformers = []string{string(transformer) + "\n"} // text with a line break is no file name
	}
	for _, image := range o.ImageOverrides {
		k.Images = append(k.Images, types.Image{Name: image.Name, NewName: image.NewName, NewTag: image.NewTag, Digest: image.Digest})
	}
	return yaml.Marshal(k)
}

func selectorOf(target *v1alpha1.PatchTarget) *types.Selector {
	if target == nil {
		return nil
	}
	return &types.Selector{
		ResId: resid.ResId{
			Gvk:  resid.Gvk{Group: target.Group, Version: target.Version, Kind: target.Kind},
			Name: target.Name, Namespace: target.Namespace,
		},
		LabelSelector: target.LabelSelector, AnnotationSelector: target.AnnotationSelector,
	}
}

// overlayFiles is the repository with the overlay's files beside it.
type overlayFiles struct {
	kustomizeFiles
	files map[string][]byte
}

// own returns the name of what is in the overlay's folder, "." for the folder.
func own(name string) (inside string, ok bool) {
	clean := path.Clean(name)
	if clean == overlayPoint {
		return ".", true
	}
	return strings.CutPrefix(clean, overlayPoint+"/")
}

func (o overlayFiles) ReadFile(name string) ([]byte, error) {
	inside, ok := own(name)
	if !ok {
		return o.kustomizeFiles.ReadFile(name)
	}
	if content, found := o.files[inside]; found {
		return content, nil
	}
	return nil, &fs.PathError{Op: "open", Path: inside, Err: fs.ErrNotExist}
}

func (o overlayFiles) IsDir(name string) bool {
	if inside, ok := own(name); ok {
		return inside == "."
	}
	return o.kustomizeFiles.IsDir(name)
}

func (o overlayFiles) Exists(name string) bool {
	if inside, ok := own(name); ok {
		_, found := o.files[inside]
		return found || inside == "."
	}
	return o.kustomizeFiles.Exists(name)
}

func (o overlayFiles) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	inside, ok := own(name)
	switch {
	case !ok:
		return o.kustomizeFiles.CleanedAbs(name)
	case inside == ".":
		return overlayPoint, "", nil
	case o.Exists(name):
		return overlayPoint, inside, nil
	}
	return "", "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

func (o overlayFiles) ReadDir(name string) ([]string, error) {
	if _, ok := own(name); ok {
		return nil, errors.ErrUnsupported
	}
	return o.kustomizeFiles.ReadDir(name)
}
