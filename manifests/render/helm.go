package render

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/ignore"
)

const defaultKubeVersion = "v1.37.0"

// renderChart renders the chart at spec.Path as a first installation: lookup
// finds nothing. The folder crds/ comes first, then the templates by name.
func renderChart(repo *repository, spec Spec) ([]located, error) {
	files, err := chartFiles(repo, spec.Path)
	if err != nil {
		return nil, err
	}
	loaded, err := loader.LoadFiles(files)
	if err != nil {
		return nil, &Error{Path: path.Join(spec.Path, "Chart.yaml"), Cause: err}
	}
	if kind := loaded.Metadata.Type; kind != "" && kind != "application" {
		return nil, &Error{Path: path.Join(spec.Path, "Chart.yaml"), Cause: fmt.Errorf("a chart of type %s has no objects of its own (name it in the dependencies of one that has)", kind)}
	}
	if err := checkSchemas(loaded, spec.Path); err != nil {
		return nil, err
	}
	values, err := chartValues(repo, spec)
	if err != nil {
		return nil, err
	}
	if err := resolveDependencies(loaded, values, spec); err != nil {
		return nil, err
	}
	renderValues, err := releaseValues(loaded, values, spec)
	if err != nil {
		return nil, err
	}
	rendered, err := renderTemplates(loaded, renderValues, spec)
	if err != nil {
		return nil, err
	}
	var objects []located
	for _, crd := range loaded.CRDObjects() {
		name := path.Join(spec.Path, stripChart(crd.Filename, loaded))
		decoded, err := decodeObjects(name, crd.File.Data, false)
		if err != nil {
			return nil, err
		}
		objects = append(objects, decoded...)
	}
	for _, template := range slices.Sorted(maps.Keys(rendered)) {
		if path.Base(template) == "NOTES.txt" {
			continue
		}
		decoded, err := decodeRendered(path.Join(spec.Path, stripChart(template, loaded)), rendered[template])
		if err != nil {
			return nil, err
		}
		objects = append(objects, decoded...)
	}
	return objects, nil
}

// stripChart drops the chart's name, which need not be its folder's, from a template's name.
func stripChart(name string, loaded *chart.Chart) string {
	return strings.TrimPrefix(name, loaded.Name()+"/")
}

// chartFiles reads the chart's folder as Helm does, .helmignore respected.
func chartFiles(repo *repository, dir string) ([]*loader.BufferedFile, error) {
	rules := ignore.Empty()
	content, found, err := repo.read(path.Join(dir, ignore.HelmIgnore))
	if err != nil {
		return nil, err
	}
	if found {
		if rules, err = ignore.Parse(bytes.NewReader(content)); err != nil {
			return nil, &Error{Path: path.Join(dir, ignore.HelmIgnore), Cause: err}
		}
	}
	rules.AddDefaults()
	relative := func(name string) string {
		if dir == "." {
			return name
		}
		return strings.TrimPrefix(name, dir+"/")
	}
	skip := func(name string, isDir bool) bool {
		return rules.Ignore(relative(name), chartEntry{path.Base(name), isDir})
	}
	var files []*loader.BufferedFile
	err = repo.walk(dir, skip, func(name string) error {
		content, _, err := repo.read(name)
		if err != nil {
			return err
		}
		if isValues(name) {
			if err := checkAliases(content); err != nil {
				return &Error{Path: name, Cause: err}
			}
		}
		files = append(files, &loader.BufferedFile{Name: relative(name), Data: bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))})
		return nil
	})
	return files, err
}

func isValues(name string) bool {
	return slices.Contains([]string{"Chart.yaml", "Chart.lock", "values.yaml", "requirements.yaml"}, path.Base(name))
}

// checkSchemas looks at the schemas of a chart and of the charts in it, archives included.
func checkSchemas(one *chart.Chart, dir string) error {
	if len(one.Schema) > 0 {
		if err := checkSchema(one.Schema); err != nil {
			return &Error{Path: path.Join(dir, "values.schema.json"), Cause: err}
		}
	}
	for _, sub := range one.Dependencies() {
		if err := checkSchemas(sub, path.Join(dir, "charts", sub.Name())); err != nil {
			return err
		}
	}
	return nil
}

// checkSchema refuses references out of the schema: the validator would open files and URLs.
func checkSchema(content []byte) error {
	var schema any
	if err := json.Unmarshal(content, &schema); err != nil {
		return fmt.Errorf("not valid JSON: %w", err)
	}
	var walk func(value any) error
	walk = func(value any) error {
		switch value := value.(type) {
		case map[string]any:
			for key, child := range value {
				if target, ok := child.(string); ok && strings.HasSuffix(key, "ef") && key[0] == '$' && !strings.HasPrefix(target, "#") {
					return fmt.Errorf("%s %q leads out of the schema (only references within it are followed)", key, target)
				}
				if err := walk(child); err != nil {
					return err
				}
			}
		case []any:
			for _, child := range value {
				if err := walk(child); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return walk(schema)
}

// resolveDependencies drops the subcharts that are switched off. All that
// Chart.yaml names must be in charts/: nothing is downloaded.
func resolveDependencies(loaded *chart.Chart, values map[string]any, spec Spec) error {
	for _, wanted := range loaded.Metadata.Dependencies {
		has := slices.ContainsFunc(loaded.Dependencies(), func(sub *chart.Chart) bool { return sub.Name() == wanted.Name })
		if !has {
			return &Error{Path: path.Join(spec.Path, "Chart.yaml"), Cause: fmt.Errorf(
				"dependency %q is not in charts/ (commit what 'helm dependency build' puts there)", wanted.Name,
			)}
		}
	}
	if err := chartutil.ProcessDependencies(loaded, values); err != nil {
		return &Error{Path: path.Join(spec.Path, "Chart.yaml"), Cause: err}
	}
	return nil
}

func releaseValues(loaded *chart.Chart, values map[string]any, spec Spec) (chartutil.Values, error) {
	release := chartutil.ReleaseOptions{
		Name:      cmp.Or(spec.Helm.ReleaseName, spec.Application),
		Namespace: cmp.Or(spec.Namespace, "default"),
		Revision:  1,
		IsInstall: true,
	}
	if err := chartutil.ValidateReleaseName(release.Name); err != nil {
		return nil, &Error{Path: spec.Path, Cause: fmt.Errorf("release name %q: %w (see spec.helm.releaseName)", release.Name, err)}
	}
	kube, err := chartutil.ParseKubeVersion(cmp.Or(spec.KubeVersion, defaultKubeVersion))
	if err != nil {
		return nil, &Error{Path: spec.Path, Cause: err}
	}
	if constraint := loaded.Metadata.KubeVersion; constraint != "" && !chartutil.IsCompatibleRange(constraint, kube.Version) {
		return nil, &Error{Path: path.Join(spec.Path, "Chart.yaml"), Cause: fmt.Errorf("wants Kubernetes %s, this is %s", constraint, kube.Version)}
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *kube
	if len(spec.APIVersions) > 0 {
		capabilities.APIVersions = spec.APIVersions
	}
	result, err := chartutil.ToRenderValues(loaded, values, release, capabilities)
	if err != nil {
		return nil, &Error{Path: path.Join(spec.Path, "values.yaml"), Cause: errors.New(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " "))}
	}
	return result, nil
}

// renderTemplates renders twice unless the Spec allows unstable output: what
// differs between two renders would differ at every restart.
func renderTemplates(loaded *chart.Chart, values chartutil.Values, spec Spec) (map[string]string, error) {
	if !spec.Helm.AllowUnstable {
		if err := refuseUnstable(loaded, values, spec.Path); err != nil {
			return nil, err
		}
	}
	first, err := engine.Render(loaded, values)
	if err != nil {
		return nil, templateError(loaded, spec, err)
	}
	if spec.Helm.AllowUnstable {
		return first, nil
	}
	second, err := engine.Render(loaded, values)
	if err != nil {
		return nil, templateError(loaded, spec, err)
	}
	for _, name := range slices.Sorted(maps.Keys(first)) {
		if first[name] != second[name] {
			return nil, &Error{Path: path.Join(spec.Path, stripChart(name, loaded)), Cause: errors.New(
				"renders differently each time (spec.helm.allowUnstable permits it; the objects then change at restarts)",
			)}
		}
	}
	return first, nil
}

// templateError names the innermost template and line in a message of Helm.
func templateError(loaded *chart.Chart, spec Spec, err error) error {
	text := err.Error()
	if mark := regexp.MustCompile(unstableMark + `:(\w+):([^:"]+):(\d+)`).FindStringSubmatch(text); mark != nil {
		line, _ := strconv.Atoi(mark[3])
		return &Error{Path: path.Join(spec.Path, mark[2]), Line: line, Cause: unstableError(mark[1])}
	}
	places := regexp.MustCompile(`([\w.@+/-]+/templates/[^\s:()]+):(\d+)(?::\d+)?`).FindAllStringSubmatch(text, -1)
	if len(places) == 0 {
		return &Error{Path: spec.Path, Cause: err}
	}
	last := places[len(places)-1]
	line, _ := strconv.Atoi(last[2])
	if at := strings.LastIndex(text, last[0]); at >= 0 {
		text = strings.TrimLeft(text[at+len(last[0]):], "): ")
	}
	return &Error{Path: path.Join(spec.Path, stripChart(last[1], loaded)), Line: line, Cause: errors.New(text)}
}

// decodeRendered reads the objects of one rendered template and translates its hooks.
func decodeRendered(name, content string) ([]located, error) {
	decoded, err := decodeObjects(strings.TrimSuffix(name, ".json"), []byte(content), false)
	if err != nil {
		var at *Error
		if errors.As(err, &at) { // lines of the output are not lines of the template
			return nil, &Error{Path: name, Cause: fmt.Errorf("line %d of its output: %w", at.Line, at.Cause)}
		}
		return nil, err
	}
	var objects []located
	for _, one := range decoded {
		one.path, one.line = name, 0
		kept, err := translateHook(one)
		if err != nil {
			return nil, err
		}
		if kept {
			objects = append(objects, one)
		}
	}
	return objects, nil
}

// chartEntry is what the ignore rules ask about a file.
type chartEntry struct {
	name  string
	isDir bool
}

func (e chartEntry) Name() string     { return e.name }
func (e chartEntry) IsDir() bool      { return e.isDir }
func (chartEntry) Size() int64        { return 0 }
func (chartEntry) Mode() fs.FileMode  { return 0 }
func (chartEntry) ModTime() time.Time { return time.Time{} }
func (chartEntry) Sys() any           { return nil }
