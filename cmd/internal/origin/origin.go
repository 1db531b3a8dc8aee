// Package origin says which file of a repository an object is rendered from. It follows plain folders and the resources,
// components and generators of kustomizations by name, as kustomize reads them. Of charts it says that they are charts: a
// template can make anything, so no file of one is named. What it cannot find it calls unknown.
package origin

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// Origin is where an object comes from.
type Origin struct {
	// File and Line of the object's YAML, or of the kustomization whose generator makes it. Empty if that is not known.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Through are the kustomizations that lead there, the Application's own first.
	Through []string `json:"through,omitempty"`
	// Patches are the files with patches that name the object, or its kind.
	Patches []string `json:"patches,omitempty"`
	// Note says what else there is to say: a generator, a chart, why it is not known.
	Note string `json:"note,omitempty"`
}

// Find looks for ref in what the spec of its Application renders. An error means that the tree could not be read.
func Find(tree gitsource.Tree, spec v1alpha1.ApplicationSpec, ref manifests.Ref) (Origin, error) {
	dir := path.Clean(spec.Path)
	if spec.Helm != nil {
		note := "rendered by the chart " + dir
		if len(spec.Helm.ValuesFiles) > 0 {
			note += " with " + strings.Join(spec.Helm.ValuesFiles, ", ")
		}
		return Origin{Note: note}, nil
	}
	s := &search{tree: tree, kind: ref.GroupKind(), above: map[string]bool{}}
	found, err := s.folder(dir, []string{ref.Name})
	if err != nil || found == nil {
		return Origin{Note: "no file below " + dir + " and its bases was found that holds it"}, err
	}
	return *found, nil
}

// search is one look for an object of a kind.
type search struct {
	tree  gitsource.Tree
	kind  schema.GroupKind
	above map[string]bool // folders on the way here
}

// folder looks in a kustomization, or in all files of a plain folder. names are those that the object may have here.
func (s *search) folder(dir string, names []string) (*Origin, error) {
	if s.above[dir] {
		return nil, nil // a kustomization that leads to itself does not render
	}
	s.above[dir] = true
	defer delete(s.above, dir)
	for _, name := range []string{"kustomization.yaml", "kustomization.yml", "Kustomization"} {
		file := path.Join(dir, name)
		content, err := s.tree.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return s.kustomization(file, content, names)
	}
	return s.plain(dir, names)
}

// plain looks in the files that a folder without a kustomization renders.
func (s *search) plain(dir string, names []string) (*Origin, error) {
	entries, err := s.tree.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		var found *Origin
		if entry.IsDir() {
			found, err = s.plain(name, names)
		} else if slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(name)) {
			found, err = s.file(name, names)
		}
		if found != nil || err != nil {
			return found, err
		}
	}
	return nil, nil
}

// kustomization is what of one leads to objects.
type kustomization struct {
	Resources  []string    `json:"resources"`
	Bases      []string    `json:"bases"`
	Components []string    `json:"components"`
	NamePrefix string      `json:"namePrefix"`
	NameSuffix string      `json:"nameSuffix"`
	ConfigMaps []generator `json:"configMapGenerator"`
	Secrets    []generator `json:"secretGenerator"`
	Patches    []patch     `json:"patches"`
	Merges     []string    `json:"patchesStrategicMerge"`
	JSON6902   []patch     `json:"patchesJson6902"`
}

type generator struct {
	Name     string `json:"name"`
	Behavior string `json:"behavior"`
}

type patch struct {
	Path   string `json:"path"`
	Patch  string `json:"patch"`
	Target *struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	} `json:"target"`
}

func (s *search) kustomization(file string, content []byte, names []string) (*Origin, error) {
	var k kustomization
	if err := yaml.Unmarshal(content, &k); err != nil {
		return nil, nil //nolint:nilerr // it does not render, so nothing comes from it
	}
	dir, inner := path.Dir(file), inside(names, k.NamePrefix, k.NameSuffix)
	found, err := s.below(dir, k, inner)
	if err != nil {
		return nil, err
	}
	if made := s.generated(file, k, inner); made != nil {
		found = made
	}
	if found == nil {
		return nil, nil
	}
	found.Through = append([]string{file}, found.Through...)
	patches, err := s.patches(file, k, slices.Concat(inner, names))
	found.Patches = append(found.Patches, patches...)
	return found, err
}

// below looks in what a kustomization names.
func (s *search) below(dir string, k kustomization, names []string) (*Origin, error) {
	for _, entry := range slices.Concat(k.Resources, k.Bases, k.Components) {
		at := path.Join(dir, entry)
		what, err := fs.Stat(s.tree, at)
		if err != nil {
			continue // outside of the repository, or not there: it does not render
		}
		var found *Origin
		if what.IsDir() {
			found, err = s.folder(at, names)
		} else {
			found, err = s.file(at, names)
		}
		if found != nil || err != nil {
			return found, err
		}
	}
	return nil, nil
}

// inside are the names that an object may have before a prefix and a suffix are put on it, which some kinds are spared.
func inside(names []string, prefix, suffix string) []string {
	all := slices.Clone(names)
	for _, name := range names {
		rest, hasPrefix := strings.CutPrefix(name, prefix)
		trimmed, hasSuffix := strings.CutSuffix(rest, suffix)
		if hasPrefix && hasSuffix && trimmed != "" && !slices.Contains(all, trimmed) {
			all = append(all, trimmed)
		}
		// The hash of generated names comes after the suffix.
		if bare := withoutHash(rest); hasPrefix && bare != rest {
			if trimmed, has := strings.CutSuffix(bare, suffix); has && !slices.Contains(all, trimmed) {
				all = append(all, trimmed)
			}
		}
	}
	return all
}

// hash is what kustomize puts behind generated names (sigs.k8s.io/kustomize/api/hasher).
var hash = regexp.MustCompile(`-[bcdfghkmt2456789]{10}$`)

func withoutHash(name string) string { return hash.ReplaceAllString(name, "") }

// generated says whether a generator of this kustomization makes the object.
func (s *search) generated(file string, k kustomization, names []string) *Origin {
	field, list := "configMapGenerator", k.ConfigMaps
	switch s.kind {
	case schema.GroupKind{Kind: "ConfigMap"}:
	case schema.GroupKind{Kind: "Secret"}:
		field, list = "secretGenerator", k.Secrets
	default:
		return nil
	}
	for _, g := range list {
		if g.Behavior == "merge" {
			continue // it is made below
		}
		for _, name := range names {
			if name == g.Name || withoutHash(name) == g.Name {
				return &Origin{File: file, Note: "made by " + field + " " + g.Name}
			}
		}
	}
	return nil
}

// file looks at the documents of one file.
func (s *search) file(name string, names []string) (*Origin, error) {
	content, err := s.tree.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for _, d := range documents(content) {
		for _, object := range objects(d.content) {
			if object.is(s.kind) && slices.Contains(names, object.Metadata.Name) {
				return &Origin{File: name, Line: d.line}, nil
			}
		}
	}
	return nil, nil
}

// object is what tells objects apart.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Items []object `json:"items"`
}

func (o object) is(kind schema.GroupKind) bool {
	version, err := schema.ParseGroupVersion(o.APIVersion)
	return err == nil && version.Group == kind.Group && o.Kind == kind.Kind
}

func objects(content []byte) []object {
	var one object
	if yaml.Unmarshal(content, &one) != nil {
		return nil
	}
	if strings.HasSuffix(one.Kind, "List") {
		return one.Items
	}
	return []object{one}
}

type document struct {
	content []byte
	line    int
}

// documents cuts a stream of YAML; line is where the first word of a document stands.
func documents(content []byte) []document {
	var all []document
	current, line := document{}, 0
	for text := range bytes.Lines(content) {
		line++
		if bytes.HasPrefix(text, []byte("---")) {
			all, current = append(all, current), document{}
			continue
		}
		if trimmed := bytes.TrimSpace(text); current.line == 0 && len(trimmed) > 0 && trimmed[0] != '#' {
			current.line = line
		}
		current.content = append(current.content, text...)
	}
	return append(all, current)
}

// patches lists the files whose patches name the object, and this one for those that stand in it.
func (s *search) patches(file string, k kustomization, names []string) ([]string, error) {
	var all []string
	list := slices.Concat(k.Patches, k.JSON6902)
	for _, entry := range k.Merges {
		one := patch{Path: entry}
		if strings.Contains(entry, "\n") {
			one = patch{Patch: entry}
		}
		list = append(list, one)
	}
	for _, p := range list {
		at, content := file, []byte(p.Patch)
		if p.Path != "" {
			at = path.Join(path.Dir(file), p.Path)
			var err error
			if content, err = s.tree.ReadFile(at); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				return nil, err
			}
		}
		if s.meant(p, content, names) && !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	return all, nil
}

// meant says whether a patch is for the object: by its target, which holds regular expressions, else by what it names itself.
func (s *search) meant(p patch, content []byte, names []string) bool {
	if p.Target != nil {
		return fits(p.Target.Kind, []string{s.kind.Kind}) && fits(p.Target.Name, names)
	}
	return slices.ContainsFunc(documents(content), func(d document) bool {
		return slices.ContainsFunc(objects(d.content), func(o object) bool {
			return o.is(s.kind) && slices.Contains(names, o.Metadata.Name)
		})
	})
}

func fits(expression string, texts []string) bool {
	if expression == "" {
		return true
	}
	anchored, err := regexp.Compile(fmt.Sprintf("^(?:%s)$", expression))
	return err == nil && slices.ContainsFunc(texts, anchored.MatchString)
}
