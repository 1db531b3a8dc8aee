package render

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func jsonValue(raw string) *apiextensionsv1.JSON { return &apiextensionsv1.JSON{Raw: []byte(raw)} }

func mustRender(t testing.TB, renderer *Renderer, repo files, spec Spec) Result {
	t.Helper()
	result, err := renderer.Render(t.Context(), repo.snapshot(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func TestMemo(t *testing.T) {
	dir := t.TempDir()
	registry := prometheus.NewRegistry()
	first := newRenderer(t, func(o *Options) { o.MemoDir = dir; o.Metrics = registry })
	again := newRenderer(t, func(o *Options) { o.MemoDir = dir })
	base := shop()
	steps := []struct {
		name string
		repo files
		memo bool
	}{
		{"first", base, false},
		{"same", base, true},
		{"unrelated file", base.with(files{"docs/README.md": "other", "apps/shop/base/NOTES.md": "new"}), true},
		{"base changed", base.with(files{"apps/shop/base/deploy.yaml": deployment("web", "registry.example/web:2")}), false},
		{"generator input changed", base.with(files{"apps/shop/base/app.properties": "greeting=bye\n"}), false},
		{"reverted", base, true},
		{"component changed", base.with(files{"components/extra/role.yaml": strings.ReplaceAll(base["components/extra/role.yaml"], "[]", "[{verbs: [get]}]")}), false},
		{"file replaced by a link to the same", base.with(files{"apps/shop/base/deploy.yaml": "-> other.yaml", "apps/shop/base/other.yaml": base["apps/shop/base/deploy.yaml"]}), false},
	}
	for _, step := range steps {
		result := mustRender(t, first, step.repo, prod())
		if result.Memoised != step.memo {
			t.Errorf("%s: memoised %t", step.name, result.Memoised)
		}
		if len(result.Reads) == 0 {
			t.Errorf("%s: no reads", step.name)
		}
	}
	t.Run("survives a restart", func(t *testing.T) {
		last := steps[len(steps)-1].repo
		result := mustRender(t, again, last, prod())
		if !result.Memoised || result.Set.Digest != mustRender(t, first, last, prod()).Set.Digest {
			t.Error("not found on disk")
		}
	})
	t.Run("the Spec is in the key", func(t *testing.T) {
		other := prod()
		other.Namespace = "other"
		if mustRender(t, first, base, other).Memoised {
			t.Error("memoised for another namespace")
		}
	})
	t.Run("damage is a miss", func(t *testing.T) {
		names, _ := filepath.Glob(filepath.Join(dir, "*", "*.json"))
		if len(names) == 0 {
			t.Fatal("nothing on disk")
		}
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v %v", name, info.Mode(), err)
			}
			content, _ := os.ReadFile(name)
			if err := os.WriteFile(name, content[:len(content)-2], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		fresh := newRenderer(t, func(o *Options) { o.MemoDir = dir })
		if mustRender(t, fresh, base, prod()).Memoised {
			t.Error("damaged entry was used")
		}
		key := scratchKey(t, prod())
		for _, name := range names {
			if _, err := os.Stat(name); err != nil || filepath.Base(filepath.Dir(name)) != key {
				continue
			}
			if _, err := loadEntry(name); err != nil { // a new entry may have taken the name
				t.Errorf("%s: the damaged entry stayed", name)
			}
		}
	})
	families, err := registry.Gather()
	if err != nil || len(families) != 2 {
		t.Fatal(families, err)
	}
	for _, metric := range families[1].Metric {
		if label := metric.Label[0].GetValue(); label == "memo" && metric.Counter.GetValue() < 3 {
			t.Errorf("memo counted %v", metric.Counter.GetValue())
		}
	}
}

func TestNewFileInAReadFolder(t *testing.T) {
	renderer := newRenderer(t, nil)
	repo := files{"app/a.yaml": configMap("a", "1"), "other/x.yaml": "x"}
	spec := Spec{Path: "app", Application: "app"}
	mustRender(t, renderer, repo, spec)
	if !mustRender(t, renderer, repo.with(files{"other/y.yaml": "y"}), spec).Memoised {
		t.Error("a file elsewhere is a miss")
	}
	result := mustRender(t, renderer, repo.with(files{"app/b.yaml": configMap("b", "1")}), spec)
	if result.Memoised || len(result.Set.Objects) != 2 {
		t.Error("the new file was not seen")
	}
}

// Nothing of a Set with a Secret is on disk.
func TestSecretsStayInMemory(t *testing.T) {
	dir := t.TempDir()
	renderer := newRenderer(t, func(o *Options) { o.MemoDir = dir })
	repo := files{"app/a.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: hunter2}\n"}
	spec := Spec{Path: "app", Application: "app"}
	mustRender(t, renderer, repo, spec)
	if !mustRender(t, renderer, repo, spec).Memoised {
		t.Error("not memoised in memory")
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(names) != 0 {
		t.Errorf("on disk: %v", names)
	}
}

// Random repositories and commits: the memo never tells anything but what
// rendering from scratch does, and a commit elsewhere is always a hit.
func TestMemoEqualsRendering(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	memoised := newRenderer(t, func(o *Options) { o.MemoDir = t.TempDir() })
	render := func(repo files, spec Spec) (Result, string) {
		result, err := memoised.Render(t.Context(), repo.snapshot(), spec)
		if err != nil {
			return result, err.Error()
		}
		return result, string(result.Set.Digest)
	}
	scratch := newRenderer(t, nil)
	identity := newIdentity(t)
	specs := []Spec{{Path: "a", Application: "a"}, {Path: "k", Application: "k", Namespace: "n"}, {Path: "c", Application: "c", Helm: web().Helm}, {}, {}, {}}
	repo := files{
		"a/0.yaml": configMap("x", "0"), "k/kustomization.yaml": "resources: [../b, ../a/0.yaml]\n",
		"b/kustomization.yaml": "resources: [r.yaml]\n", "b/r.yaml": configMap("r", "0"),
		"c/Chart.yaml": "apiVersion: v2\nname: c\nversion: 1.0.0\n", "c/templates/x.yaml": configMap("c", "{{ .Values.v }}"),
		"envs/prod.yaml": "v: 1\n", "envs/more.yaml": "w: 1\n", "s/a.yaml": configMap("s", "${A} ${B:=none}"),
		"e/a.yaml":             newEncryptor(t, "^stringData$", identity.Recipient().String()).yaml(sopsManifest()),
		"o/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [r.yaml]\n", "o/r.yaml": configMap("o", "0"),
	}
	for commit := range 60 {
		changes, elsewhere := randomCommit(random, repo, commit)
		randomInputs(random, specs, identity.String())
		before := map[string]bool{}
		for _, spec := range specs {
			_, text := render(repo, spec)
			before[spec.Application] = strings.HasPrefix(text, "sha256:")
		}
		repo = changes
		for _, spec := range specs {
			result, got := render(repo, spec)
			if elsewhere && before[spec.Application] && !result.Memoised {
				t.Fatalf("seed %d commit %d: %s: a commit elsewhere is a miss", seed, commit, spec.Path)
			}
			scratch.memo.forget(scratchKey(t, spec))
			fresh, err := scratch.Render(t.Context(), repo.snapshot(), spec)
			want := string(fresh.Set.Digest)
			if err != nil {
				want = err.Error()
			}
			if fresh.Memoised || got != want {
				t.Fatalf("seed %d commit %d: %s: memoised %s, from scratch %s", seed, commit, spec.Path, got, want)
			}
		}
	}
}

func scratchKey(t *testing.T, spec Spec) string {
	normalised, err := spec.normalised()
	if err != nil {
		t.Fatal(err)
	}
	key, err := memoKey(normalised)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// randomInputs gives the last three specs variables, values, an overlay and keys, of which each may change alone.
func randomInputs(random *rand.Rand, specs []Spec, key string) {
	value := func() string { return fmt.Sprint(random.IntN(2)) }
	config := Input{Kind: v1alpha1.InputConfigMap, Name: "site", Data: map[string][]byte{"A": []byte(value()), "values.yaml": []byte("v: " + value())}}
	secret := secretInput(map[string]string{"B": value(), "a.agekey": key})
	if random.IntN(4) == 0 {
		delete(secret.Data, "a.agekey")
	}
	variables := &v1alpha1.SubstituteSpec{Strict: random.IntN(2) == 0, From: []v1alpha1.InputReference{
		{Kind: v1alpha1.InputConfigMap, Name: "site"}, {Kind: v1alpha1.InputSecret, Name: "keys", Optional: true},
	}}
	if random.IntN(2) == 0 {
		variables.Variables = map[string]string{"A": "inline" + value()}
	}
	overlay := v1alpha1.Overlay{NamePrefix: "p" + value() + "-", Components: []string{"o"}, CommonLabels: map[string]string{"l": value()}}
	n := len(specs)
	specs[n-3] = Spec{Path: "s", Application: "s", Substitute: variables, Overlay: overlay, Inputs: []Input{config, secret}}
	specs[n-2] = Spec{
		Path: "c", Application: "hc", Inputs: []Input{config},
		Helm: &v1alpha1.HelmSpec{ValuesFrom: []v1alpha1.ValuesReference{{Kind: v1alpha1.InputConfigMap, Name: "site"}}},
	}
	specs[n-1] = decrypting("e", nil)
	specs[n-1].Inputs = []Input{secret}
	if random.IntN(4) == 0 {
		specs[n-1].Decryption = nil
	}
}

// randomCommit changes, adds, removes or links a file; or one that no Application reads.
func randomCommit(random *rand.Rand, repo files, number int) (changed files, elsewhere bool) {
	value := fmt.Sprint(random.IntN(4))
	switch random.IntN(10) {
	case 8:
		return repo.with(files{"s/a.yaml": configMap("s", "${A}"+value+" ${B:=none}")}), false
	case 9:
		return repo.with(files{"o/r.yaml": configMap("o", value)}), false
	case 0:
		return repo.with(files{"docs/" + value: fmt.Sprint(number)}), true
	case 1:
		return repo.with(files{"a/" + value + ".yaml": configMap("x"+value, value)}), false
	case 2:
		return repo.with(files{"b/r.yaml": configMap("r", value)}), false
	case 3:
		return repo.with(files{"b/r.yaml": "-> ../shared/r" + value, "shared/r" + value: configMap("r", value)}), false
	case 4:
		return repo.with(files{"envs/prod.yaml": "v: " + value + "\n"}), false
	case 5:
		names := slices.Sorted(maps.Keys(repo))
		removed := repo.with(nil)
		name := names[random.IntN(len(names))]
		if strings.HasPrefix(name, "a/") {
			delete(removed, name)
		}
		return removed.with(files{"a/0.yaml": configMap("x", value)}), false
	case 6:
		return repo.with(files{"c/templates/x.yaml": configMap("c", value+"{{ .Values.v }}")}), false
	default:
		return repo.with(files{"b/kustomization.yaml": "resources: [r.yaml]\nnameSuffix: -" + value + "\n"}), false
	}
}

func BenchmarkKustomization(b *testing.B) {
	renderer := newRenderer(b, nil)
	repo := shop()
	mustRender(b, renderer, repo, prod())
	for n := 0; b.Loop(); n++ {
		changed := repo.with(files{"apps/shop/base/app.properties": fmt.Sprintf("greeting=%d\n", n)})
		if mustRender(b, renderer, changed, prod()).Memoised {
			b.Fatal("memoised")
		}
	}
}

func BenchmarkMemoHit(b *testing.B) {
	renderer := newRenderer(b, nil)
	repo := shop()
	mustRender(b, renderer, repo, prod())
	for b.Loop() {
		if !mustRender(b, renderer, repo, prod()).Memoised {
			b.Fatal("rendered")
		}
	}
}

// FuzzYAML wants an answer for any bytes, and no object without a name.
func FuzzYAML(f *testing.F) {
	for _, seed := range []string{configMap("a", "b"), bomb(), "---\n---\n...\n%YAML 1.1\n", "a: &a [*a]", "{", "- - -", "kind: List\napiVersion: v1\nitems: [[]]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		objects, err := decodeObjects("a.yaml", content, true)
		if err != nil {
			return
		}
		if err := finish(objects, Spec{Application: "a", Namespace: "n"}); err != nil {
			return
		}
		encoded, err := encodeObjects(objects, Spec{})
		if err != nil {
			return
		}
		set, err := decodeSet(encoded)
		if err != nil {
			return
		}
		for _, object := range set.Objects {
			if object.GetName() == "" || object.GetLabels()["slipway.dev/application"] != "a" {
				t.Errorf("%v", object)
			}
		}
	})
}
