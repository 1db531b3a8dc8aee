package render

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// archive packs a chart as helm package does; a content "-> x" is a symbolic link to x.
func archive(t *testing.T, content files) string {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	packed := tar.NewWriter(compressed)
	for name, text := range content {
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}
		if target, link := strings.CutPrefix(text, "-> "); link {
			header.Typeflag, header.Linkname, header.Size, text = tar.TypeSymlink, target, 0, ""
		}
		if err := packed.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := packed.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(packed.Close(), compressed.Close()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A repository cannot read outside of itself, by whatever way it names the place.
func TestNothingOutsideIsRead(t *testing.T) {
	outside := path.Join(t.TempDir(), "secret")
	const secret = "outside-of-the-repository"
	if err := os.WriteFile(outside, []byte(`{"const": "`+secret+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20) + strings.TrimPrefix(outside, "/")
	sub := files{"sub/Chart.yaml": "apiVersion: v2\nname: sub\nversion: 1.0.0\n"}
	chart := func(content files) files { return valuesChart().with(content) }
	app := Spec{Path: "app", Application: "app"}
	helm := Spec{Path: "chart", Application: "app", Helm: &v1alpha1.HelmSpec{}}
	valuesAt := func(name string) Spec {
		spec := helm
		spec.Helm = &v1alpha1.HelmSpec{ValuesFiles: []string{name}}
		return spec
	}
	kustomization := func(text string) files {
		return files{"app/kustomization.yaml": text, "app/cm.yaml": configMap("a", "")}
	}
	for name, test := range map[string]struct {
		repo files
		spec Spec
		want string
	}{
		"linked file":        {files{"app/a.yaml": "-> " + up}, app, "leaves the repository"},
		"linked folder":      {files{"app/a": "-> ../..", "app/b.yaml": configMap("b", "")}, app, "leaves the repository"},
		"chain of links":     {files{"app/a.yaml": "-> b.yaml", "app/b.yaml": "-> ../c/d.yaml", "c": "-> e", "e/d.yaml": "-> " + up}, app, "leaves the repository"},
		"links through":      {files{"app/a.yaml": "-> deep/deeper/../../../../x", "app/deep/deeper/x": ""}, app, "leaves the repository"},
		"resource":           {kustomization("resources: [" + up + "]\n"), app, "leaves the repository"},
		"absolute resource":  {kustomization("resources: [" + outside + "]\n"), app, "leaves the repository"},
		"generator file":     {kustomization("configMapGenerator: [{name: a, files: [" + up + "]}]\n"), app, "leaves the repository"},
		"generator env":      {kustomization("secretGenerator: [{name: a, envs: [" + outside + "]}]\n"), app, "leaves the repository"},
		"replacement":        {kustomization("resources: [cm.yaml]\nreplacements: [{path: " + up + "}]\n"), app, "leaves the repository"},
		"openapi":            {kustomization("resources: [cm.yaml]\nopenapi: {path: " + up + "}\n"), app, "leaves the repository"},
		"crds":               {kustomization("resources: [cm.yaml]\ncrds: [" + up + "]\n"), app, "leaves the repository"},
		"patch transformer":  {kustomization("resources: [cm.yaml]\ntransformers: ['{apiVersion: builtin, kind: PatchTransformer, metadata: {name: x}, path: " + outside + "}\n']\n"), app, "leaves the repository"},
		"values file":        {chart(nil), valuesAt(up), "leaves the repository"},
		"linked values file": {chart(files{"envs/b.yaml": "-> " + outside}), valuesAt("envs/b.yaml"), "leaves the repository"},
		"linked template":    {chart(files{"chart/templates/b.yaml": "-> " + outside}), helm, "leaves the repository"},
		"linked charts":      {chart(files{"chart/charts": "-> ../../../etc"}), helm, "leaves the repository"},
		"archive traversal":  {chart(files{"chart/charts/sub.tgz": archive(t, sub.with(files{"sub/../../etc/x": "x"}))}), helm, "illegally references parent directory"},
		"schema":             {chart(files{"chart/values.schema.json": `{"$ref": "file://` + outside + `"}`}), helm, "leads out of the schema"},
		"schema in archive":  {chart(files{"chart/charts/sub.tgz": archive(t, sub.with(files{"sub/values.schema.json": `{"$ref": "file://` + outside + `"}`}))}), helm, "leads out of the schema"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newRenderer(t, nil).Render(t.Context(), test.repo.snapshot(), test.spec)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), secret) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
		})
	}
	t.Run("link in an archive", func(t *testing.T) {
		repo := chart(files{"chart/charts/sub.tgz": archive(t, sub.with(files{
			"sub/secret": "-> " + outside, "sub/templates/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sub}\ndata: {key: '{{ .Files.Get \"secret\" }}'}\n",
		}))})
		set := mustRender(t, newRenderer(t, nil), repo, helm).Set
		if got := fmt.Sprint(set.Objects[1].Object["data"]); got != "map[key:]" {
			t.Errorf("got %s", got)
		}
	})
}

// Programs are not run and names not looked up; the environment is not there to be read.
func TestNothingIsRun(t *testing.T) {
	mark := path.Join(t.TempDir(), "ran")
	script := "apiVersion: v1\nkind: Gen\nmetadata: {name: g, annotations: {config.kubernetes.io/function: '{exec: {path: ./run.sh}}'}}\n"
	for name, repo := range map[string]files{
		"exec generator":      {"app/kustomization.yaml": "generators: [g.yaml]\n", "app/g.yaml": script},
		"exec transformer":    {"app/kustomization.yaml": "resources: [a.yaml]\ntransformers: [g.yaml]\n", "app/g.yaml": script, "app/a.yaml": configMap("a", "")},
		"exec validator":      {"app/kustomization.yaml": "resources: [a.yaml]\nvalidators: [g.yaml]\n", "app/g.yaml": script, "app/a.yaml": configMap("a", "")},
		"container generator": {"app/kustomization.yaml": "generators: [g.yaml]\n", "app/g.yaml": strings.Replace(script, "exec: {path: ./run.sh}", "container: {image: evil}", 1)},
		"starlark":            {"app/kustomization.yaml": "generators: [g.yaml]\n", "app/g.yaml": strings.Replace(script, "exec: {path: ./run.sh}", "starlark: {path: run.star, name: x}", 1)},
		"go plugin":           {"app/kustomization.yaml": "generators: [g.yaml]\n", "app/g.yaml": "apiVersion: someteam.example.com/v1\nkind: SedTransformer\nmetadata: {name: x}\n"},
		"helm generator":      {"app/kustomization.yaml": "generators: [g.yaml]\n", "app/g.yaml": "apiVersion: builtin\nkind: HelmChartInflationGenerator\nmetadata: {name: x}\nname: x\nrepo: https://x.example\n"},
	} {
		t.Run(name, func(t *testing.T) {
			repo = repo.with(files{"app/run.sh": "#!/bin/sh\ntouch " + mark + "\n"})
			if _, err := newRenderer(t, nil).Render(t.Context(), repo.snapshot(), Spec{Path: "app", Application: "app"}); err == nil {
				t.Error("rendered")
			}
			if _, err := os.Stat(mark); err == nil {
				t.Error("the program was run")
			}
		})
	}
	helm := Spec{Path: "chart", Application: "app", Helm: &v1alpha1.HelmSpec{}}
	for _, function := range []string{`env "HOME"`, `expandenv "$HOME"`} {
		repo := valuesChart().with(files{"chart/templates/cm.yaml": "a: {{ " + function + " }}\n"})
		if _, err := newRenderer(t, nil).Render(t.Context(), repo.snapshot(), helm); err == nil || !strings.Contains(err.Error(), "not defined") {
			t.Errorf("%s: got %v", function, err)
		}
	}
	repo := valuesChart().with(files{"chart/templates/cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm}\ndata: {host: '{{ getHostByName \"localhost\" }}'}\n"})
	if got := fmt.Sprint(mustRender(t, newRenderer(t, nil), repo, helm).Set.Objects[0].Object["data"]); got != "map[host:]" {
		t.Errorf("a name was looked up: %s", got)
	}
}

// huge is a tree with one file that says it is large, and whose content nobody must ask for.
type huge struct {
	files
	name string
	size int64
}

func (h huge) Entry(name string) (gitsource.Entry, error) {
	found, err := h.files.Entry(name)
	if name == h.name {
		found.Size = h.size
	}
	return found, err
}

func (h huge) ReadFile(name string) ([]byte, error) {
	if name == h.name {
		return nil, errors.New("the large file was read")
	}
	return h.files.ReadFile(name)
}

// What is too much is refused by the limit's name, in bounded time, and costs no other render anything.
func TestTooMuch(t *testing.T) {
	deep := func(open, end string, n int) string {
		return "a: " + strings.Repeat(open, n) + strings.Repeat(end, n) + "\n"
	}
	app := Spec{Path: "app", Application: "app"}
	helm := Spec{Path: "chart", Application: "app", Helm: &v1alpha1.HelmSpec{ValuesFiles: []string{"envs/a.yaml"}}}
	chart := func(name, text string) files { return valuesChart().with(files{name: text}) }
	for name, test := range map[string]struct {
		tree gitsource.Tree
		spec Spec
	}{
		"file of 100 MB":     {huge{files{"app/a.yaml": "x"}, "app/a.yaml", 100 << 20}, app},
		"values of 100 MB":   {huge{valuesChart(), "envs/a.yaml", 100 << 20}, helm},
		"bomb in values":     {chart("envs/a.yaml", bomb()), helm},
		"bomb in the chart":  {chart("chart/values.yaml", bomb()), helm},
		"bomb rendered":      {chart("chart/templates/b.yaml", bomb()), helm},
		"deep flow":          {files{"app/a.yaml": deep("[", "]", 200_000)}, app},
		"deep JSON":          {files{"app/a.json": `{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"x":` + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000) + "}"}, app},
		"recursive template": {chart("chart/templates/b.yaml", `{{ define "r" }}{{ include "r" . }}{{ end }}{{ include "r" . }}`), helm},
		"template of tpl":    {chart("chart/templates/b.yaml", `{{ define "t" }}{{ tpl "{{ include \"t\" . }}" . }}{{ end }}{{ include "t" . }}`), helm},
		"endless template":   {chart("chart/templates/b.yaml", "{{ range until 100000 }}{{ range until 100000 }}{{ end }}{{ end }}"), helm},
		"growing template":   {chart("chart/templates/b.yaml", `{{ $x := "xxxxxxxxxx" }}{{ range until 40 }}{{ $x = printf "%s%s" $x $x }}{{ end }}`), helm},
	} {
		t.Run(name, func(t *testing.T) {
			renderer := newRenderer(t, func(o *Options) { o.Timeout = 10 * time.Second; o.MemoryBytes = 400 << 20 })
			start := time.Now()
			_, err := renderer.Render(t.Context(), gitsource.Snapshot{Tree: test.tree}, test.spec)
			var located *Error
			if !errors.As(err, &located) || len(err.Error()) > 1000 {
				t.Errorf("got %v", err)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %s", took)
			}
			if _, err := renderer.Render(t.Context(), shop().snapshot(), prod()); err != nil {
				t.Errorf("the next render: %v", err)
			}
		})
	}
}

// What came from a Secret is in no error, wherever a library quotes it from.
func TestSecretsOfObjectsAreNotInErrors(t *testing.T) {
	const secret = "hunter2-hunter2"
	repo := valuesChart().with(files{"chart/templates/s.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {pw: {{ .Values.pw | quote }}}\n"})
	for i, patch := range []v1alpha1.Patch{
		{Patch: "[{op: test, path: /stringData/pw, value: other}]", Target: &v1alpha1.PatchTarget{Kind: "Secret"}},
		{Patch: "[{op: add, path: /stringData/pw/x/y, value: other}]", Target: &v1alpha1.PatchTarget{Kind: "Secret"}},
		{Patch: "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: [{$patch: x}]\n"},
	} {
		spec := valuesSpec([]v1alpha1.ValuesReference{{Kind: v1alpha1.InputSecret, Name: "keys", Key: "pw", TargetPath: "pw"}}, secretInput(map[string]string{"pw": secret}))
		spec.Overlay.Patches = []v1alpha1.Patch{patch}
		_, err := newRenderer(t, nil).Render(t.Context(), repo.snapshot(), spec)
		if err == nil && i < 2 || err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("patch %d: got %v", i, err)
		}
	}
}
