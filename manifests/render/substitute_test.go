package render

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func TestSubstituteScalar(t *testing.T) {
	values := map[string]string{
		"N": "3", "F": "1.5", "V": "1.20", "B": "true", "S": "text", "EMPTY": "", "Q": `"8080"`, "SQ": "'it''s'", "ZERO": "007",
		"LINES": "a\nb: c\n- d", "NESTED": "${S}", "BIG": "123456789012345678901", "YES": "yes", "NULL": "null", "NEG": "-4",
	}
	for _, test := range []struct {
		text   string
		strict bool
		want   any
		err    string
	}{
		{"${N}", true, int64(3), ""},
		{"${NEG}", true, int64(-4), ""},
		{"${F}", true, 1.5, ""},
		{"${V}", true, "1.20", ""}, // as a number it would become 1.2
		{"${B}", true, true, ""},
		{"${N}${N}", true, int64(33), ""},
		{"v${N}", true, "v3", ""},
		{"${Q}", true, "8080", ""},
		{"${SQ}", true, "it's", ""},
		{"${ZERO}", true, "007", ""},
		{"${BIG}", true, "123456789012345678901", ""},
		{"${YES}", true, "yes", ""},
		{"${NULL}", true, "null", ""},
		{"${LINES}", true, "a\nb: c\n- d", ""},
		{"${NESTED}", true, "${S}", ""}, // values are not searched
		{"${EMPTY}", true, "", ""},
		{"${EMPTY:=d}", true, "d", ""},
		{"${GONE:-d}", true, "d", ""},
		{"${GONE:=}", true, "", ""},
		{"${GONE:=5}", true, int64(5), ""},
		{"${GONE:-a ${S} $${x} ${GONE:=b}}c", true, "a text ${x} bc", ""},
		{"$${N} ${N}", true, "${N} 3", ""},
		{"$$${N}", true, "$${N}", ""},
		{"$N $(N) $$ {N}", true, "$N $(N) $$ {N}", ""},
		{"${GONE}", false, "", ""},
		{"a${GONE}b", false, "ab", ""},
		{"${GONE}", true, nil, "spec.x: variable GONE is not defined (give it in spec.substitute, or a default by ${GONE:=...})"},
		{"${N", false, nil, "begins none of"},
		{"${N:=a", false, nil, "no closing }"},
		{"${1}", false, nil, "begins none of"},
		{"${}", false, nil, "begins none of"},
		{"${N%3}", false, nil, "write $${"},
		{strings.Repeat("${A:=", 100) + strings.Repeat("}", 100), false, nil, "nested more than 64 deep"},
	} {
		t.Run(test.text, func(t *testing.T) {
			s := substitution{values: values, strict: test.strict, left: maxSetBytes}
			object := map[string]any{"spec": map[string]any{"x": test.text}}
			err := s.object(object)
			got := object["spec"].(map[string]any)["x"]
			switch {
			case test.err != "":
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want %q", err, test.err)
				}
			case err != nil:
				t.Error(err)
			case !reflect.DeepEqual(got, test.want):
				t.Errorf("got %T %v, want %T %v", got, got, test.want, test.want)
			}
		})
	}
}

// Where Kubernetes takes text, a number stays text.
func TestSubstituteKeepsText(t *testing.T) {
	content := `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "${N}", "labels": {"a": "${N}"}}, "data": {"a": "${N}"},
		"spec": {"replicas": "${N}", "selector": {"matchLabels": {"a": "${N}"}}, "nodeSelector": {"a": "${N}"}, "data": {"a": "${N}"},
		"containers": [{"image": "${N}", "args": ["${N}"], "env": [{"name": "${N}", "value": "${N}"}], "ports": [{"containerPort": "${N}"}]}]}}`
	want := strings.NewReplacer(`{"replicas": "${N}"`, `{"replicas": 1`, `"containerPort": "${N}"`, `"containerPort": 1`,
		`"nodeSelector": {"a": "${N}"}, "data": {"a": "${N}"}`, `"nodeSelector": {"a": "1"}, "data": {"a": 1}`, "${N}", "1").Replace(content)
	var object, wanted map[string]any
	for text, into := range map[string]*map[string]any{content: &object, want: &wanted} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	s := substitution{values: map[string]string{"N": "1"}, left: maxSetBytes}
	if err := s.object(object); err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(object)
	expected, _ := json.Marshal(wanted)
	if string(got) != string(expected) {
		t.Errorf("got\n%s\nwant\n%s", got, expected)
	}
}

func TestSubstituteGrowth(t *testing.T) {
	s := substitution{values: map[string]string{"BIG": strings.Repeat("x", 1<<20)}, left: maxSetBytes}
	err := s.object(map[string]any{"spec": map[string]any{"x": strings.Repeat("${BIG}", 100)}})
	if err == nil || !strings.Contains(err.Error(), "spec.x: variables put in more than 33554432 bytes: the limit") {
		t.Errorf("got %v", err)
	}
}

// secret is the Input that the tests keep out of errors and off the disk.
func secretInput(data map[string]string) Input {
	one := Input{Kind: v1alpha1.InputSecret, Name: "keys", Data: map[string][]byte{}}
	for key, value := range data {
		one.Data[key] = []byte(value)
	}
	return one
}

func substituting(substitute v1alpha1.SubstituteSpec, inputs ...Input) Spec {
	return Spec{Path: "app", Application: "app", Namespace: "n", Substitute: &substitute, Inputs: inputs}
}

func TestSubstituteOrder(t *testing.T) {
	repo := files{
		"app/kustomization.yaml": "resources: [a.yaml, b.yaml]\nnamePrefix: ${PREFIX}-\n",
		"app/a.yaml":             strings.Replace(configMap("a", "${ONE} ${TWO} ${THREE} ${app.properties:=x}"), " ${app.properties:=x}", "", 1),
		"app/b.yaml":             "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, annotations: {slipway.dev/substitute: disabled}}\ndata: {key: \"${ONE} ${#}\"}\n",
	}
	spec := substituting(
		v1alpha1.SubstituteSpec{
			Variables: map[string]string{"THREE": "inline"}, Strict: true,
			From: []v1alpha1.InputReference{
				{Kind: v1alpha1.InputConfigMap, Name: "site"},
				{Kind: v1alpha1.InputSecret, Name: "keys"},
				{Kind: v1alpha1.InputConfigMap, Name: "gone", Optional: true},
			},
		},
		Input{Kind: v1alpha1.InputConfigMap, Name: "site", Data: map[string][]byte{
			"ONE": []byte("config"), "TWO": []byte("config"), "THREE": []byte("config"), "app.properties": []byte("x"), "PREFIX": []byte("eu"),
		}},
		secretInput(map[string]string{"TWO": "secret", "THREE": "secret"}),
	)
	renderer := newRenderer(t, nil)
	set := mustRender(t, renderer, repo, spec).Set
	if len(set.Objects) != 2 || set.Objects[1].GetName() != "eu-a" || set.Objects[1].GetNamespace() != "n" {
		t.Fatalf("got %v and %v", set.Objects[0].Object, set.Objects[1].Object)
	}
	if got := set.Objects[1].Object["data"].(map[string]any)["key"]; got != "config secret inline" {
		t.Errorf("got %v", got)
	}
	b := set.Objects[0]
	if got := b.Object["data"].(map[string]any)["key"]; got != "${ONE} ${#}" || !strings.HasPrefix(b.GetName(), "${PREFIX}") {
		t.Errorf("the object that opted out has %v, name %s", got, b.GetName())
	}
}

func TestSubstituteRefusals(t *testing.T) {
	repo := files{"app/a.yaml": "# one\n---\n" + deployment("web", "${IMAGE}")}
	strict := v1alpha1.SubstituteSpec{Strict: true}
	from := v1alpha1.SubstituteSpec{From: []v1alpha1.InputReference{{Kind: v1alpha1.InputSecret, Name: "keys"}}}
	for _, test := range []struct {
		name, want string
		repo       files
		spec       Spec
	}{
		{"not defined", "app/a.yaml:2: Deployment web: spec.template.spec.containers[0].image: variable IMAGE is not defined", repo, substituting(strict)},
		{"missing object", "app: spec.substitute.from[0]: Secret keys is not there", repo, substituting(from)},
		{"bad name", `app: spec.substitute.variables: "a-b" is not a name`, repo, substituting(v1alpha1.SubstituteSpec{Variables: map[string]string{"a-b": "x"}})},
		{"bad annotation", "ConfigMap a: annotation slipway.dev/substitute: the only value is", files{
			"app/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {slipway.dev/substitute: enabled}}\n",
		}, substituting(strict)},
		{"in a key", "a key holds a variable", files{"app/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {\"${X}\": a}\n"}, substituting(strict)},
		{"a name that becomes empty", "metadata.name is required", files{"app/a.yaml": configMap("'${X}'", "a")}, substituting(v1alpha1.SubstituteSpec{})},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := newRenderer(t, nil).Render(t.Context(), test.repo.snapshot(), test.spec)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
		})
	}
}

// Two objects that a Secret's value makes equal are named without it, on either side of the pipe.
func TestSubstitutedSecretIsNotInErrors(t *testing.T) {
	const secret = "hunter2-hunter2"
	repo := files{"app/a.yaml": configMap("'${PW}'", "1"), "app/b.yaml": configMap("'${PW}'", "2")}
	spec := substituting(v1alpha1.SubstituteSpec{From: []v1alpha1.InputReference{{Kind: v1alpha1.InputSecret, Name: "keys"}}}, secretInput(map[string]string{"PW": secret}))
	_, err := newRenderer(t, nil).Render(t.Context(), repo.snapshot(), spec)
	if err == nil || !strings.Contains(err.Error(), "rendered twice") {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("the error has the secret: %v", err)
	}
	if text := fmt.Sprintf("%v %+v %#v", spec.Inputs, spec.Inputs, spec.Inputs); strings.Contains(text, secret) || strings.Contains(text, "104, 117") {
		t.Errorf("an Input prints its data: %s", text)
	}
}

// A ConfigMap that a Secret's value got into is as secret as the Secret.
func TestSubstitutedSecretsStayInMemory(t *testing.T) {
	const secret = "hunter2-hunter2"
	dir := t.TempDir()
	renderer := newRenderer(t, func(o *Options) { o.MemoDir = dir })
	repo := files{"app/a.yaml": configMap("a", "${PW}")}
	spec := substituting(v1alpha1.SubstituteSpec{From: []v1alpha1.InputReference{{Kind: v1alpha1.InputSecret, Name: "keys"}}}, secretInput(map[string]string{"PW": secret}))
	if got := mustRender(t, renderer, repo, spec).Set.Objects[0].Object["data"].(map[string]any)["key"]; got != secret {
		t.Fatalf("got %v", got)
	}
	if !mustRender(t, renderer, repo, spec).Memoised {
		t.Error("not memoised in memory")
	}
	changed := substituting(*spec.Substitute, secretInput(map[string]string{"PW": "another"}))
	if mustRender(t, renderer, repo, changed).Memoised {
		t.Error("memoised for another secret")
	}
	open := Spec{Path: "app", Application: "app"}
	mustRender(t, renderer, repo, open)
	grepMemo(t, dir, 1, secret)
}

// grepMemo wants a number of entries below dir, and none of texts in any.
func grepMemo(t *testing.T, dir string, entries int, texts ...string) {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	if len(names) != entries {
		t.Errorf("%d entries on disk, want %d", len(names), entries)
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			if strings.Contains(string(content), text) {
				t.Errorf("%s holds %q", name, text)
			}
		}
	}
}

// shape is a tree with its scalars left out.
func shape(value any) any {
	switch value := value.(type) {
	case map[string]any:
		result := map[string]any{}
		for key, child := range value {
			result[key] = shape(child)
		}
		return result
	case []any:
		result := make([]any, len(value))
		for i, child := range value {
			result[i] = shape(child)
		}
		return result
	}
	return nil
}

// FuzzSubstitute: whatever text and value are, the tree keeps its shape, text
// without variables stays as it is, and once no ${ is left nothing changes any more.
func FuzzSubstitute(f *testing.F) {
	for _, seed := range []string{"${A}", "$${A}", "${A:=${B}}", "${A:-", "${", "a: b\n- ${A}", "${A}${B:-$${}", "$$${A}"} {
		f.Add(seed, "x: y\n- z", true)
		f.Add(seed, "17", false)
	}
	f.Fuzz(func(t *testing.T, text, value string, strict bool) {
		tree := func() map[string]any {
			return map[string]any{
				"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": text},
				"data": map[string]any{"a": text}, "spec": map[string]any{"a": text, "list": []any{text, map[string]any{"b": text}, int64(1), nil}},
			}
		}
		s := substitution{values: map[string]string{"A": value}, strict: strict, left: maxSetBytes}
		object := tree()
		if err := s.object(object); err != nil {
			if len(value) > 20 && !strings.Contains(text, value) && strings.Contains(err.Error(), value) {
				t.Errorf("the error holds the value: %v", err)
			}
			return
		}
		if !reflect.DeepEqual(shape(object), shape(tree())) {
			t.Errorf("another shape: %v", object)
		}
		if !strings.Contains(text, "${") && !reflect.DeepEqual(object, tree()) {
			t.Errorf("%q became %v", text, object)
		}
		encoded, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(encoded), "${") {
			return
		}
		again := (&unstructured.Unstructured{Object: object}).DeepCopy().Object
		if err := s.object(again); err != nil || !reflect.DeepEqual(again, object) {
			t.Errorf("a second time: %v, %v, before %v", err, again, object)
		}
	})
}
