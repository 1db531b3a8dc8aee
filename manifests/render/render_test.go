package render

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// TestMain makes the test binary its own child.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "render-child" {
		if err := Child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// files is a Tree: content by path. A content "-> x" is a symbolic link to x, "submodule" a submodule.
type files map[string]string

func (f files) fs() fstest.MapFS {
	tree := fstest.MapFS{}
	for name, content := range f {
		tree[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return tree
}

func id(kind, content string) gitsource.ObjectID {
	sum := sha1.Sum([]byte(kind + "\x00" + content))
	return gitsource.ObjectID(hex.EncodeToString(sum[:]))
}

func (f files) Entry(name string) (gitsource.Entry, error) {
	if content, ok := f[name]; ok {
		switch {
		case content == "submodule":
			return gitsource.Entry{Kind: gitsource.Submodule, ID: id("commit", content)}, nil
		case strings.HasPrefix(content, "-> "):
			return gitsource.Entry{Kind: gitsource.Symlink, ID: id("blob", content), Size: int64(len(content))}, nil
		}
		return gitsource.Entry{Kind: gitsource.File, ID: id("blob", content), Size: int64(len(content))}, nil
	}
	var below []string
	for other, content := range f {
		if name == "." || strings.HasPrefix(other, name+"/") {
			below = append(below, other+"\x00"+string(id("blob", content)))
		}
	}
	if len(below) == 0 && name != "." {
		return gitsource.Entry{}, nil
	}
	slices.Sort(below)
	return gitsource.Entry{Kind: gitsource.Directory, ID: id("tree", strings.Join(below, "\x00"))}, nil
}

func (f files) ReadLink(name string) (string, error) {
	target, ok := strings.CutPrefix(f[name], "-> ")
	if !ok {
		return "", fs.ErrInvalid
	}
	return target, nil
}

func (f files) Open(name string) (fs.File, error)          { return f.fs().Open(name) }
func (f files) ReadFile(name string) ([]byte, error)       { return f.fs().ReadFile(name) }
func (f files) ReadDir(name string) ([]fs.DirEntry, error) { return f.fs().ReadDir(name) }

func (f files) snapshot() gitsource.Snapshot { return gitsource.Snapshot{Tree: f} }

func (f files) with(changes files) files {
	result := files{}
	for name, content := range f {
		result[name] = content
	}
	for name, content := range changes {
		result[name] = content
	}
	return result
}

func newRenderer(t testing.TB, change func(*Options)) *Renderer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	options := Options{Command: []string{self, "render-child"}, Workers: 1, MemoryBytes: 1 << 30}
	if change != nil {
		change(&options)
	}
	renderer, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = renderer.Close() })
	return renderer
}

func deployment(name, image string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 2
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers: [{name: %[1]s, image: %[2]q, resources: {limits: {cpu: 2}}}]
`, name, image)
}

func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {key: %q}\n", name, value)
}

// shop is a repository with a kustomization of four objects on a base, and a component.
func shop() files {
	return files{
		"apps/shop/base/kustomization.yaml": "resources: [deploy.yaml, service.yaml]\nconfigMapGenerator: [{name: settings, files: [app.properties]}]\n",
		"apps/shop/base/deploy.yaml":        deployment("web", "registry.example/web:1"),
		"apps/shop/base/service.yaml":       "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}], selector: {app: web}}\n",
		"apps/shop/base/app.properties":     "greeting=hello\n",
		"components/extra/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n" +
			"resources: [role.yaml]\n",
		"components/extra/role.yaml": "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: reader}\nrules: []\n",
		"apps/shop/prod/kustomization.yaml": "resources: [../base]\ncomponents: [../../../components/extra]\nnamePrefix: prod-\n" +
			"images: [{name: registry.example/web, digest: 'sha256:" + strings.Repeat("a", 64) + "'}]\n",
		"docs/README.md": "hello\n",
	}
}

func prod() Spec { return Spec{Path: "apps/shop/prod", Application: "shop", Namespace: "shop"} }

func TestKustomization(t *testing.T) {
	result, err := newRenderer(t, nil).Render(t.Context(), shop().snapshot(), prod())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, object := range result.Set.Objects {
		got = append(got, fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName()))
		if object.GetLabels()["slipway.dev/application"] != "shop" {
			t.Errorf("%s has no label", object.GetName())
		}
	}
	want := []string{"ConfigMap shop/prod-settings-mg4h8f46k6", "Service shop/prod-web", "Deployment shop/prod-web", "ClusterRole /prod-reader"}
	if len(got) == len(want) { // the hash of the generated name is kustomize's business
		want[0] = got[0]
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	uses := result.Set.Images()
	if len(uses) != 1 || !strings.HasPrefix(uses[0].Image, "registry.example/web@sha256:aaaa") {
		t.Errorf("images: %v", uses)
	}
	deploy := result.Set.Objects[2].Object["spec"].(map[string]any)
	if replicas, ok := deploy["replicas"].(int64); !ok || replicas != 2 {
		t.Errorf("replicas are %T", deploy["replicas"])
	}
	labels := deploy["template"].(map[string]any)["metadata"].(map[string]any)["labels"].(map[string]any)
	if len(labels) != 1 {
		t.Errorf("pod template got labels: %v", labels)
	}
}

func TestFolder(t *testing.T) {
	repo := files{
		"app/b.yml": "---\n# first\n---\n" + configMap("b", "1") + "---\n" + configMap("c", "2") + "...\n",
		"app/sub/list.yaml": "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: shop, namespace: wrong}}\n" +
			"- {apiVersion: example.org/v1, kind: Planet, metadata: {name: mars}}\n",
		"app/crd.json": `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"planets.example.org","labels":null},
			"spec":{"group":"example.org","scope":"Cluster","names":{"kind":"Planet"}}}`,
		"app/.hidden/x.yaml": "not: [a manifest",
		"app/notes.txt":      "nothing",
		"app/linked.yaml":    "-> ../shared/d.yaml",
		"shared/d.yaml":      "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d, namespace: own}\n",
	}
	result, err := newRenderer(t, nil).Render(t.Context(), repo.snapshot(), Spec{Path: "app/", Application: "a", Namespace: "ns"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, object := range result.Set.Objects {
		got = append(got, object.GetKind()+" "+path.Join(object.GetNamespace(), object.GetName()))
	}
	want := []string{"ConfigMap ns/b", "ConfigMap ns/c", "ConfigMap own/d", "Namespace shop", "CustomResourceDefinition planets.example.org", "Planet mars"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func webChart() files {
	return files{
		"charts/web/Chart.yaml":                    "apiVersion: v2\nname: web\nversion: 1.0.0\ndependencies: [{name: cache, version: 1.0.0, condition: cache.enabled}]\n",
		"charts/web/values.yaml":                   "image: web:1\npassword: given\ncache: {enabled: true, size: 1}\n",
		"charts/web/.helmignore":                   "ignored.yaml\n",
		"charts/web/templates/ignored.yaml":        "{{ fail \"must be ignored\" }}",
		"charts/web/templates/NOTES.txt":           "Hello",
		"charts/web/templates/_helpers.tpl":        "{{ define \"pw\" }}{{ if .Values.password }}{{ .Values.password }}{{ else }}{{ randAlphaNum 10 | quote }}{{ end }}{{ end }}",
		"charts/web/templates/deploy.yaml":         deployment("{{ .Release.Name }}", "{{ .Values.image }}"),
		"charts/web/templates/cm.yaml":             "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm}\ndata:\n  pw: {{ include \"pw\" . }}\n  ns: {{ .Release.Namespace }}\n  found: {{ len (lookup \"v1\" \"Secret\" \"a\" \"b\") | quote }}\n",
		"charts/web/templates/tests/t.yaml":        "apiVersion: v1\nkind: Pod\nmetadata: {name: t, annotations: {helm.sh/hook: test}}\n",
		"charts/web/crds/crd.yaml":                 "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a.b}\nspec: {}\n",
		"charts/web/charts/cache/Chart.yaml":       "apiVersion: v2\nname: cache\nversion: 1.0.0\n",
		"charts/web/charts/cache/templates/x.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cache}\ndata: {size: {{ .Values.size | quote }}}\n",
		"envs/prod.yaml":                           "image: web:2\ncache: {size: 2}\n",
		"envs/more.yaml":                           "cache: {size: 3}\n",
	}
}

func web() Spec {
	return Spec{Path: "charts/web", Application: "web", Namespace: "shop", Helm: &v1alpha1.HelmSpec{ValuesFiles: []string{"envs/prod.yaml", "envs/more.yaml"}}}
}

func TestChart(t *testing.T) {
	result, err := newRenderer(t, nil).Render(t.Context(), webChart().snapshot(), web())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, object := range result.Set.Objects {
		data, _ := object.Object["data"].(map[string]any)
		got = append(got, fmt.Sprint(object.GetKind(), " ", path.Join(object.GetNamespace(), object.GetName()), " ", data))
	}
	want := []string{
		"ConfigMap shop/cache map[size:3]", "ConfigMap shop/cm map[found:0 ns:shop pw:given]",
		"CustomResourceDefinition a.b map[]", "Deployment shop/web map[]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if uses := result.Set.Images(); len(uses) != 1 || uses[0].Image != "web:2" {
		t.Errorf("images %v", uses)
	}
}

// bomb is the billion laughs.
func bomb() string {
	text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\nl0: &l0 [a, a, a, a, a, a, a, a, a]\n"
	for i := 1; i < 10; i++ {
		text += fmt.Sprintf("l%d: &l%d [%s*l%d]\n", i, i, strings.Repeat(fmt.Sprintf("*l%d, ", i-1), 8), i-1)
	}
	return text
}

func TestRefusals(t *testing.T) {
	kustomization := func(content string) files { return files{"app/kustomization.yaml": content} }
	app := Spec{Path: "app", Application: "app"}
	helm := Spec{Path: "charts/web", Application: "web", Helm: &v1alpha1.HelmSpec{}}
	values := func(raw string) Spec {
		spec := helm
		spec.Helm = &v1alpha1.HelmSpec{}
		spec.Helm.Values = jsonValue(raw)
		return spec
	}
	secret := "hunter2hunter2"
	table := []struct {
		name  string
		repo  files
		spec  Spec
		want  string // in the error
		limit bool
	}{
		{"no such path", files{"x": ""}, app, "app: is not in the repository", false},
		{"path outside", files{"x": ""}, Spec{Path: "../etc", Application: "a"}, "../etc: leaves the repository", false},
		{"escaping link", files{"app/a.yaml": "-> ../../etc/passwd"}, app, "app/a.yaml: symbolic link app/a.yaml leaves the repository", false},
		{"absolute link", files{"app/a.yaml": "-> /etc/passwd"}, app, "symbolic link app/a.yaml leaves", false},
		{"links in a circle", files{"app/a.yaml": "-> b.yaml", "app/b.yaml": "-> a.yaml"}, app, "more than 40 symbolic links", true},
		{"folder in itself", files{"app/a.yaml": configMap("a", ""), "app/loop": "-> ."}, app, "app/loop: links to a folder above itself", true},
		{"submodule", files{"app/kustomization.yaml": "resources: [sub/x.yaml]", "app/sub": "submodule"}, app, "submodule app/sub", false},
		{"base outside", kustomization("resources:\n- ../../outside\n"), app, `app/kustomization.yaml:2: resources: "../../outside" leaves the repository`, false},
		{"patch outside", kustomization("resources: []\npatches:\n- path: ../../x.yaml\n"), app, "leaves the repository", false},
		{"absolute patch", kustomization("resources: []\npatches:\n- path: /etc/passwd\n"), app, "leaves the repository", false},
		{"kustomize escaping link", files{"app/kustomization.yaml": "resources: [a.yaml]", "app/a.yaml": "-> ../../x"}, app, "symbolic link app/a.yaml leaves", false},
		{"missing resource", kustomization("resources:\n\n- gone.yaml\n"), app, `app/kustomization.yaml:3: resources: "gone.yaml" is not in the repository`, false},
		{"remote base", kustomization("resources:\n- https://github.com/a/b//c?ref=main\n"), app, `app/kustomization.yaml:2: resources: remote entry "https://github.com/a/b//c?ref=main"`, false},
		{"remote scp", kustomization("resources: ['git@github.com:a/b']\n"), app, "remote entry", false},
		{"remote patch", kustomization("resources: []\npatches: [{path: 'http://x.example/p.yaml'}]\n"), app, "patches: remote entry", false},
		{"remote of a builtin", files{
			"app/kustomization.yaml": "resources: [cm.yaml]\ntransformers: [t.yaml]\n", "app/cm.yaml": configMap("a", ""),
			"app/t.yaml": "apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: t}\npath: https://x.example/p.yaml\n",
		}, app, "does not use the network", false},
		{"exec plugin", files{
			"app/kustomization.yaml": "generators: [g.yaml]\n",
			"app/g.yaml":             "apiVersion: v1\nkind: Gen\nmetadata: {name: g, annotations: {config.kubernetes.io/function: 'exec: {path: /bin/true}'}}\n",
		}, app, "plugin", false},
		{"helmCharts", kustomization("helmCharts: [{name: x}]\n"), app, "app/kustomization.yaml:1: helmCharts is not supported", false},
		{"kustomization in itself", files{"app/kustomization.yaml": "resources: [../b]", "b/kustomization.yaml": "resources: [../app]"}, app, "endless recursion", true},
		{"kustomize bad YAML", files{"app/kustomization.yaml": "resources: [a.yaml]", "app/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {\n"}, app, "app/a.yaml:", false},
		{"kustomize bomb", files{"app/kustomization.yaml": "resources: [a.yaml]", "app/a.yaml": bomb()}, app, "app/a.yaml: YAML aliases expand to more than 1000000", true},
		{"bomb", files{"app/a.yaml": bomb()}, app, "app/a.yaml: YAML aliases expand to more than 1000000 nodes: the limit", true},
		{"alias in itself", files{"app/a.yaml": "a: &a [*a]"}, app, "app/a.yaml: a YAML alias contains itself", true},
		{"oversized", files{"app/a.yaml": "# " + strings.Repeat("x", maxFileBytes)}, app, "more than the limit of 16777216 for one file", true},
		{"bad YAML", files{"app/a.yaml": configMap("a", "") + "---\napiVersion: v1\nkind: ConfigMap\n  bad: {\n"}, app, "app/a.yaml:8: not valid YAML", false},
		{"same key twice", files{"app/a.yaml": "apiVersion: v1\nkind: A\nkind: B\n"}, app, "app/a.yaml:3: not valid YAML", false},
		{"bad JSON", files{"app/a.json": "{\n\"a\": }"}, app, "app/a.json:", false},
		{"not an object", files{"app/a.yaml": "hello: world\n"}, app, "app/a.yaml:1: not a Kubernetes object", false},
		{"a scalar", files{"app/a.yaml": "hello\n"}, app, "app/a.yaml:1: not a Kubernetes object", false},
		{"no name", files{"app/a.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x}\n"}, app, "app/a.yaml:1: Pod: metadata.name is required", false},
		{"label not a string", files{"app/a.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {a: 1}}\n"}, app, "metadata.labels[a] is not a string", false},
		{"twice", files{"app/a.yaml": configMap("a", ""), "app/b.yaml": configMap("a", "")}, app, "rendered twice", false},
		{"nothing there", files{"app/README": ""}, app, "holds no kustomization", false},
		{"kustomization below", files{"app/a.yaml": configMap("a", ""), "app/b/kustomization.yaml": ""}, app, "app/b/kustomization.yaml: a kustomization within a plain folder", false},
		{"helm now", webChart().with(files{"charts/web/templates/n.yaml": "a: b\n{{ now }}"}), helm, "charts/web/templates/n.yaml:2: template function now gives another answer each time", false},
		{"helm random", webChart(), values(`{"password": ""}`), "charts/web/templates/_helpers.tpl:1: template function randAlphaNum", false},
		{"helm random in a value", webChart().with(files{"charts/web/templates/n.yaml": "{{ tpl .Values.x . }}"}), values(`{"x": "{{ uuidv4 }}"}`), "template function uuidv4", false},
		{"helm random in disguise", webChart().with(files{"charts/web/templates/n.yaml": "a: {{ tpl (printf \"{{ %s }}\" \"uuidv4\") . }}"}), helm, "charts/web/templates/n.yaml: renders differently each time", false},
		{"helm fail", webChart().with(files{"charts/web/templates/f.yaml": "\n{{ fail \"set x\" }}"}), helm, "charts/web/templates/f.yaml:2: set x", false},
		{"helm parse", webChart().with(files{"charts/web/templates/f.yaml": "\n{{ if }}"}), helm, "charts/web/templates/f.yaml:2: missing value for if", false},
		{"helm bad output", webChart().with(files{"charts/web/templates/f.yaml": "a: {"}), helm, "charts/web/templates/f.yaml: line 1 of its output: not valid YAML", false},
		{"helm missing dependency", files{"charts/web/Chart.yaml": webChart()["charts/web/Chart.yaml"]}, helm, `dependency "cache" is not in charts/`, false},
		{"helm no chart", files{"charts/web/x": ""}, helm, "Chart.yaml file is missing", false},
		{"helm values missing", webChart(), Spec{Path: "charts/web", Application: "a", Helm: &v1alpha1.HelmSpec{ValuesFiles: []string{"no.yaml"}}}, "no.yaml: values file is not in the repository", false},
		{"helm schema", webChart().with(files{"charts/web/values.schema.json": `{"$ref": "file:///etc/passwd"}`}), helm, "leads out of the schema", false},
		{"secret in a broken generator", kustomization("secretGenerator:\n- name: s\n  literals: ['password=" + secret + "', '" + secret + "']\n"), app, "app/kustomization.yaml: ", false},
		{"secret in a broken patch", files{"app/kustomization.yaml": "resources: [s.yaml]\npatches: [{path: s.yaml, target: {kind: [}}]", "app/s.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: " + secret + "}\n"}, app, "app/kustomization.yaml", false},
	}
	renderer := newRenderer(t, nil)
	for _, test := range table {
		t.Run(test.name, func(t *testing.T) {
			_, err := renderer.Render(t.Context(), test.repo.snapshot(), test.spec)
			if err == nil {
				t.Fatal("rendered")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if located := new(Error); !errors.As(err, &located) || located.Path == "" {
				t.Errorf("%T has no path", err)
			}
			if errors.Is(err, ErrLimit) != test.limit {
				t.Errorf("limit: %t, want %t", !test.limit, test.limit)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), mountPoint) {
				t.Errorf("says too much: %v", err)
			}
		})
	}
}

func TestUnstableAllowed(t *testing.T) {
	spec := web()
	spec.Helm = &v1alpha1.HelmSpec{AllowUnstable: true, Values: jsonValue(`{"password": ""}`)}
	if _, err := newRenderer(t, nil).Render(t.Context(), webChart().snapshot(), spec); err != nil {
		t.Fatal(err)
	}
}

// A child over a limit fails its own render, and the next one finds another child.
func TestLimitsOfTheChild(t *testing.T) {
	slow := files{
		"slow/Chart.yaml":          "apiVersion: v2\nname: slow\nversion: 1.0.0\n",
		"slow/templates/loop.yaml": "{{ range until 100000 }}{{ range until 100000 }}{{ end }}{{ end }}",
		"app/a.yaml":               configMap("a", ""),
		"big/a.yaml":               "a: [" + strings.Repeat("{},", 5<<20) + "]",
	}
	good := Spec{Path: "app", Application: "app"}
	for _, test := range []struct {
		name, want string
		spec       Spec
		options    func(*Options)
	}{
		{
			"time", "slow: rendering took longer than 1s: the limit",
			Spec{Path: "slow", Application: "a", Helm: &v1alpha1.HelmSpec{}},
			func(o *Options) { o.Timeout = time.Second },
		},
		{
			"memory", "big: rendering took more than 300 MiB of memory: the limit",
			Spec{Path: "big", Application: "a"},
			func(o *Options) { o.MemoryBytes = 300 << 20 },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			renderer := newRenderer(t, test.options)
			_, err := renderer.Render(t.Context(), slow.snapshot(), test.spec)
			if err == nil || err.Error() != test.want || !errors.Is(err, ErrLimit) {
				t.Fatalf("got %v", err)
			}
			if _, err := renderer.Render(t.Context(), slow.snapshot(), good); err != nil {
				t.Errorf("the next render: %v", err)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		renderer := newRenderer(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := renderer.Render(ctx, slow.snapshot(), Spec{Path: "slow", Application: "a", Helm: &v1alpha1.HelmSpec{}})
		if located := new(Error); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &located) {
			t.Fatalf("got %v", err)
		}
	})
}

// What a tree cannot tell is not the user's mistake.
func TestUnreadableTree(t *testing.T) {
	_, err := newRenderer(t, nil).Render(t.Context(), gitsource.Snapshot{Tree: unreadable{shop()}}, prod())
	if located := new(Error); !errors.Is(err, gitsource.ErrUnreachable) || errors.As(err, &located) {
		t.Fatalf("got %v", err)
	}
}

type unreadable struct{ files }

func (unreadable) ReadFile(string) ([]byte, error) { return nil, gitsource.ErrUnreachable }
