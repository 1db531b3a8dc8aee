package render

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

// valuesChart prints its values.
func valuesChart() files {
	return files{
		"chart/Chart.yaml":        "apiVersion: v2\nname: chart\nversion: 1.0.0\n",
		"chart/values.yaml":       "a: chart\nb: chart\nc: chart\nd: chart\ne: {deep: chart}\nlist: [x, y]\n",
		"chart/templates/cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm}\ndata:\n  values: {{ .Values | toJson | quote }}\n",
		"envs/a.yaml":             "a: file\nb: file\nc: file\nd: file\n",
	}
}

func valuesSpec(from []v1alpha1.ValuesReference, inputs ...Input) Spec {
	return Spec{Path: "chart", Application: "app", Namespace: "n", Inputs: inputs, Helm: &v1alpha1.HelmSpec{
		ValuesFiles: []string{"envs/a.yaml"}, ValuesFrom: from, Values: jsonValue(`{"d": "inline"}`),
	}}
}

func TestValuesFrom(t *testing.T) {
	config := Input{Kind: v1alpha1.InputConfigMap, Name: "site", Data: map[string][]byte{
		"values.yaml": []byte("b: config\nc: config\nd: config\n"), "replicas": []byte("3"), "flag": []byte("true"), "text": []byte(`"3"`),
	}}
	secret := secretInput(map[string]string{"values.yaml": "c: secret\nd: secret\n", "pw": "x,y={z}\nd: w"})
	reference := func(kind v1alpha1.InputKind, name, key, target string) v1alpha1.ValuesReference {
		return v1alpha1.ValuesReference{Kind: kind, Name: name, Key: key, TargetPath: target}
	}
	from := []v1alpha1.ValuesReference{
		reference(v1alpha1.InputConfigMap, "site", "", ""),
		reference(v1alpha1.InputSecret, "keys", "", ""),
		reference(v1alpha1.InputSecret, "keys", "pw", "e.deep"),
		reference(v1alpha1.InputConfigMap, "site", "replicas", "n"),
		reference(v1alpha1.InputConfigMap, "site", "flag", "f"),
		reference(v1alpha1.InputConfigMap, "site", "text", "list[0]"),
		{Kind: v1alpha1.InputConfigMap, Name: "site", Key: "gone", Optional: true},
		{Kind: v1alpha1.InputConfigMap, Name: "gone", Optional: true},
	}
	set := mustRender(t, newRenderer(t, nil), valuesChart(), valuesSpec(from, secret, config)).Set
	got := set.Objects[0].Object["data"].(map[string]any)["values"]
	want := `{"a":"file","b":"config","c":"secret","d":"inline","e":{"deep":"x,y={z}\nd: w"},"f":true,"list":["3"],"n":3}`
	if fmt.Sprint(got) != want {
		t.Errorf("got\n%v\nwant\n%s", got, want)
	}
}

func TestValuesFromRefusals(t *testing.T) {
	config := Input{Kind: v1alpha1.InputConfigMap, Name: "site", Data: map[string][]byte{"values.yaml": []byte("a: b\n  c: {\n"), "list": []byte("[a]")}}
	secret := secretInput(map[string]string{"values.yaml": "pw: hunter2hunter2\n  x: hunter2hunter2: {", "list": "[hunter2hunter2"})
	for want, from := range map[string]v1alpha1.ValuesReference{
		"chart: spec.helm.valuesFrom[0]: ConfigMap gone is not there":                               {Kind: v1alpha1.InputConfigMap, Name: "gone"},
		"chart: spec.helm.valuesFrom[0]: ConfigMap site has no key x":                               {Kind: v1alpha1.InputConfigMap, Name: "site", Key: "x"},
		"chart: spec.helm.valuesFrom[0]: line 2 of ConfigMap site, key values.yaml: not valid YAML": {Kind: v1alpha1.InputConfigMap, Name: "site"},
		"chart: spec.helm.valuesFrom[0]: line 1 of ConfigMap site, key list: not valid YAML":        {Kind: v1alpha1.InputConfigMap, Name: "site", Key: "list"},
		"chart: spec.helm.valuesFrom[0]: line 2 of Secret keys, key values.yaml: not valid YAML":    {Kind: v1alpha1.InputSecret, Name: "keys"},
		"chart: spec.helm.valuesFrom[0]: targetPath a=1,b: is not a path of keys and indexes":       {Kind: v1alpha1.InputSecret, Name: "keys", Key: "list", TargetPath: "a=1,b"},
		"chart: spec.helm.valuesFrom[0]: targetPath a[99999999]: ":                                  {Kind: v1alpha1.InputSecret, Name: "keys", Key: "list", TargetPath: "a[99999999]"},
	} {
		_, err := newRenderer(t, nil).Render(t.Context(), valuesChart().snapshot(), valuesSpec([]v1alpha1.ValuesReference{from}, config, secret))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

// A chart that prints a Secret's value into an error, plain or encoded, prints a placeholder.
func TestValuesOfSecretsAreNotInErrors(t *testing.T) {
	const secret = "hunter2hunter2"
	from := []v1alpha1.ValuesReference{{Kind: v1alpha1.InputSecret, Name: "keys"}}
	for _, template := range []string{
		`{{ fail (printf "bad %s" .Values.pw) }}`, `{{ fail (.Values.pw | b64enc) }}`, `{{ fail (.Values | toJson) }}`,
		`{{ .Values.pw.deeper }}`, "a: {{ .Values.pw }}: {", "apiVersion: v1\nkind: {{ .Values.pw }}\nmetadata: {}\n", `{{ fail (.Values.pin | toString) }}`,
	} {
		repo := valuesChart().with(files{"chart/templates/x.yaml": template})
		spec := valuesSpec(from, secretInput(map[string]string{"values.yaml": "pw: " + secret + "\npin: 918273\n"}))
		_, err := newRenderer(t, nil).Render(t.Context(), repo.snapshot(), spec)
		if err == nil {
			t.Fatalf("%s rendered", template)
		}
		for _, text := range []string{secret, "aHVudGVyMmh1bnRlcjI=", "918273"} {
			if strings.Contains(err.Error(), text) {
				t.Errorf("%s: the error has the secret: %v", template, err)
			}
		}
	}
}

func TestHooks(t *testing.T) {
	hook := func(name, value, more string) string {
		return fmt.Sprintf("apiVersion: batch/v1\nkind: Job\nmetadata: {name: %s, annotations: {helm.sh/hook: '%s'%s}}\n", name, value, more)
	}
	repo := valuesChart().with(files{
		"chart/templates/a.yaml": hook("pre", "pre-install,pre-upgrade", ", helm.sh/hook-weight: '-5'"),
		"chart/templates/b.yaml": hook("post", "Post-Install", ""),
		"chart/templates/c.yaml": hook("mixed", "post-install, pre-upgrade", ""),
		"chart/templates/d.yaml": hook("test", "test", "") + "---\n" + hook("rollback", "pre-rollback,post-delete", ""),
		"chart/templates/e.yaml": hook("own", "pre-install,test", ", slipway.dev/hook: on-failure, slipway.dev/wave: '3', helm.sh/hook-weight: '1'"),
		"chart/templates/f.yaml": hook("crd", "crd-install", ""),
	})
	set := mustRender(t, newRenderer(t, nil), repo, valuesSpec(nil)).Set
	var got []string
	for _, object := range set.Objects {
		annotations := object.GetAnnotations()
		got = append(got, path.Join(object.GetName(), annotations[manifests.AnnotationHook], annotations[manifests.AnnotationWave]))
	}
	slices.Sort(got)
	if want := []string{"cm", "crd", "mixed/post-apply", "own/on-failure/3", "post/post-apply", "pre/pre-apply/-5"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for want, template := range map[string]string{
		`chart/templates/a.yaml: Job x: helm hook "pre-lunch" is not known`:                   hook("x", "pre-lunch", ""),
		`chart/templates/a.yaml: Job x: annotation helm.sh/hook-weight is not a whole number`: hook("x", "pre-install", ", helm.sh/hook-weight: heavy"),
	} {
		_, err := newRenderer(t, nil).Render(t.Context(), valuesChart().with(files{"chart/templates/a.yaml": template}).snapshot(), valuesSpec(nil))
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
