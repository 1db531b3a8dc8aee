package appset_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/reconciler/appset"
)

func tree(files ...string) fstest.MapFS {
	out := fstest.MapFS{}
	for _, name := range files {
		out[name] = &fstest.MapFile{}
	}
	return out
}

func TestDirectories(t *testing.T) {
	t.Parallel()
	repo := tree("README.md", "apps/shop/production/a.yaml", "apps/shop/dev/a.yaml", "apps/bank/production/deep/a.yaml", "apps/production",
		"apps/.hidden/production/a.yaml", "apps/old-mail/production/a.yaml", "clusters/eu/x/a.yaml", "clusters/eu/production")
	for _, c := range []struct {
		pattern string
		exclude []string
		want    []string // "path name 1 2", or the error
	}{
		{"apps/*/production", nil, []string{"apps/bank/production bank bank", "apps/old-mail/production old-mail old-mail", "apps/shop/production shop shop"}},
		{"apps/*/production", []string{"apps/old-*"}, []string{"apps/bank/production bank bank", "apps/shop/production shop shop"}},
		{"apps/*/production", []string{"apps/*/production"}, nil},
		{"apps/*/*", []string{"apps/*/dev", "apps/old-mail"}, []string{"apps/bank/production bank-production bank production", "apps/shop/production shop-production shop production"}},
		{"*/*/d??", nil, []string{"apps/shop/dev apps-shop-dev apps shop dev"}},
		{"apps/sh[a-o]p", nil, []string{"apps/shop shop shop"}},
		{"apps/.*/production", nil, []string{"apps/.hidden/production .hidden .hidden"}},
		{"apps/shop/dev", nil, []string{"apps/shop/dev dev"}},
		{"apps/none/*", nil, nil},
		{"apps/production/*", nil, nil}, // that is a file
		{"apps/**", nil, []string{`spec.directories.pattern "apps/**": ** is not known`}},
		{"/apps/*", nil, []string{`pattern "/apps/*": want a path below the root`}},
		{"apps/../*", nil, []string{"want a path below the root"}},
		{"apps/[", nil, []string{"a [ needs a ]"}},
		{"apps/*", []string{"apps/shop", "apps/["}, []string{`spec.directories.exclude[1] "apps/["`}},
	} {
		entries, err := appset.Directories(repo, c.pattern, c.exclude)
		var got []string
		for _, e := range entries {
			words := []string{e.Variables["path"], e.Variables["name"]}
			for i := 1; e.Variables[fmt.Sprintf("values.%d", i)] != ""; i++ {
				words = append(words, e.Variables[fmt.Sprintf("values.%d", i)])
			}
			got = append(got, strings.Join(words, " "))
		}
		if err != nil {
			if len(c.want) != 1 || !strings.Contains(err.Error(), c.want[0]) {
				t.Errorf("%s %v: %v, want %v", c.pattern, c.exclude, err, c.want)
			}
			continue
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s %v: %q, want %q", c.pattern, c.exclude, got, c.want)
		}
	}
	var many []string
	for i := range 1001 {
		many = append(many, fmt.Sprintf("apps/a%d/x", i))
	}
	if _, err := appset.Directories(tree(many...), "apps/*", nil); err == nil || !strings.Contains(err.Error(), "more than 1000") {
		t.Errorf("1001 directories: %v", err)
	}
	if got, err := appset.Directories(fstest.MapFS{}, "apps/*", nil); err != nil || got != nil {
		t.Errorf("an empty tree: %v, %v", got, err)
	}
}

func template(name, path string) v1alpha1.ApplicationTemplate {
	return v1alpha1.ApplicationTemplate{
		Metadata: v1alpha1.ApplicationTemplateMetadata{Name: name},
		Spec:     v1alpha1.ApplicationSpec{SourceRef: v1alpha1.SourceRef{Name: "fleet"}, Path: path},
	}
}

func entry(name string, values ...string) v1alpha1.ApplicationSetEntry {
	e := v1alpha1.ApplicationSetEntry{Name: name, Values: map[string]string{}}
	for i := 0; i < len(values); i += 2 {
		e.Values[values[i]] = values[i+1]
	}
	return e
}

func TestExpandReachesEveryString(t *testing.T) {
	t.Parallel()
	in := template("shop-{{name}}", "apps/{{ values.folder }}")
	in.Metadata.Labels = map[string]string{"region": "{{values.region}}"}
	in.Metadata.Annotations = map[string]string{"note": "{{{{ .Values }} {{name}}"}
	in.Spec.Helm = &v1alpha1.HelmSpec{
		ValuesFiles: []string{"values/{{name}}.yaml"},
		Values:      &apiextensionsv1.JSON{Raw: []byte(`{"n":3,"list":["{{name}}",true],"deep":{"a":"x{{name}}y{{values.region}}"}}`)},
	}
	in.Spec.Patches = []v1alpha1.Patch{{Patch: "a: {{values.brace}}"}}
	out := appset.Expand(in, appset.List([]v1alpha1.ApplicationSetEntry{entry("eu", "folder", "one", "region", "eu-1", "brace", `{{name}}"`)}))
	if len(out.Failures) != 0 || len(out.Applications) != 1 {
		t.Fatalf("%+v", out)
	}
	app := out.Applications[0]
	if app.Name != "shop-eu" || app.Origin != "list entry eu" || app.Spec.Path != "apps/one" || app.Labels["region"] != "eu-1" ||
		app.Annotations["note"] != "{{ .Values }} eu" || app.Spec.Helm.ValuesFiles[0] != "values/eu.yaml" ||
		string(app.Spec.Helm.Values.Raw) != `{"deep":{"a":"xeuyeu-1"},"list":["eu",true],"n":3}` ||
		app.Spec.Patches[0].Patch != `a: {{name}}"` { // what a value holds is not looked at again
		t.Errorf("%+v %s", app, app.Spec.Helm.Values.Raw)
	}
}

// What is wrong with one entry is told by name, and the others are as they would be without it.
func TestBrokenEntries(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		name     string
		template v1alpha1.ApplicationTemplate
		list     []v1alpha1.ApplicationSetEntry
		apps     []string
		failures []string // "origin|name|part of the message"
	}{
		{
			"an unknown variable", template("", "apps/{{values.reigon}}"),
			[]v1alpha1.ApplicationSetEntry{entry("a", "region", "x"), entry("b", "reigon", "x")},
			[]string{"b"},
			[]string{"list entry a|a|template.spec.path: there is no variable {{values.reigon}}; did you mean \"values.region\"?"},
		},
		{
			"a list has no paths", template("", "{{path}}"),
			[]v1alpha1.ApplicationSetEntry{entry("a")},
			nil,
			[]string{"list entry a|a|there is no variable {{path}}; did you mean \"name\"?"},
		},
		{
			"a name that is not known", template("{{values.x}}", "a"),
			[]v1alpha1.ApplicationSetEntry{entry("a"), entry("b", "x", "c")},
			[]string{"c"},
			[]string{"list entry a||template.metadata.name: there is no variable {{values.x}}"},
		},
		{
			"names that cannot be", template("", "a"),
			[]v1alpha1.ApplicationSetEntry{entry("A"), entry("ok"), entry("a_b"), entry(long)},
			[]string{"ok"},
			[]string{`list entry A|A|the name "A": want lower-case`, "list entry a_b|a_b|want lower-case", "list entry " + long + "|" + long + "|has 64 characters, and at most 63"},
		},
		{
			"one name twice", template("{{values.x}}", "a"),
			[]v1alpha1.ApplicationSetEntry{entry("a", "x", "same"), entry("b", "x", "same"), entry("c", "x", "other")},
			[]string{"other"},
			[]string{`list entry a|same|list entry a and list entry b both come to the name "same"`, `list entry b|same|list entry b and list entry a both`},
		},
		{
			"braces that do not close", template("", "apps/{{name"),
			[]v1alpha1.ApplicationSetEntry{entry("a")},
			nil,
			[]string{`list entry a|a|template.spec.path: {{ without }}; for a "{{" that stays write "{{{{"`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := appset.Expand(c.template, appset.List(c.list))
			var names []string
			for _, app := range out.Applications {
				names = append(names, app.Name)
			}
			if !slices.Equal(names, c.apps) || len(out.Failures) != len(c.failures) {
				t.Fatalf("%v, failures %v", names, out.Failures)
			}
			for i, failure := range out.Failures {
				want := strings.SplitN(c.failures[i], "|", 3)
				if failure.Origin != want[0] || failure.Name != want[1] || !strings.Contains(failure.Err.Error(), want[2]) {
					t.Errorf("%+v, want %q", failure, want)
				}
			}
		})
	}
	keys := template("", "a")
	keys.Metadata.Labels = map[string]string{"a-{{name}}": "b"}
	out := appset.Expand(keys, appset.List([]v1alpha1.ApplicationSetEntry{entry("a")}))
	if len(out.Failures) != 1 || !strings.Contains(out.Failures[0].Err.Error(), "variables are replaced in values only") {
		t.Errorf("%+v", out)
	}
	labels := template("", "a")
	labels.Metadata.Labels = map[string]string{"a": "{{values.x}}"}
	out = appset.Expand(labels, appset.List([]v1alpha1.ApplicationSetEntry{entry("a", "x", "no label")}))
	if len(out.Failures) != 1 || !strings.Contains(out.Failures[0].Err.Error(), `template.metadata.labels.a: "no label"`) {
		t.Errorf("%+v", out)
	}
}

func named(names ...string) appset.Expansion {
	var list []v1alpha1.ApplicationSetEntry
	for _, name := range names {
		list = append(list, entry(name))
	}
	return appset.Expand(template("", "a"), appset.List(list))
}

func numbers(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("app-%03d", i))
	}
	return out
}

func owned(names []string, generation string) []appset.Owned {
	var out []appset.Owned
	for _, name := range names {
		out = append(out, appset.Owned{Name: name, UID: generation + name})
	}
	return out
}

// approval is the command that a held removal tells, without what is before it.
func approval(t *testing.T, removal appset.Removal) string {
	t.Helper()
	_, value, found := strings.Cut(removal.Held, manifests.AnnotationApprovePrune+"=")
	if !found || !strings.Contains(removal.Held, "kubectl annotate applicationset shops --overwrite") {
		t.Fatalf("%+v", removal)
	}
	return value
}

func TestRemove(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		want, have []string
		goes       int
		held       bool
	}{
		{"nothing", numbers(0, 20), numbers(0, 20), 0, false},
		{"one of many", numbers(1, 20), numbers(0, 20), 1, false},
		{"ten of ten, for others", numbers(10, 20), numbers(0, 10), 10, false},
		{"half", numbers(30, 60), numbers(0, 60), 30, false},
		{"more than half", numbers(31, 60), numbers(0, 60), 31, true},
		{"nine of ten", numbers(54, 60), numbers(0, 60), 54, true},
	} {
		removal := appset.Remove(appset.In{Set: "shops", Want: named(c.want...), Owned: owned(c.have, "")})
		if len(removal.Names) != c.goes || (removal.Held != "") != c.held || removal.State != "" {
			t.Errorf("%s: %+v", c.name, removal)
		}
	}
}

// An approval is good for what was asked, until that is done, and never again.
func TestApproval(t *testing.T) {
	t.Parallel()
	in := appset.In{Set: "shops", Want: named(numbers(54, 60)...), Owned: owned(numbers(0, 60), "first-")}
	held := appset.Remove(in)
	in.Approved = approval(t, held)
	going := appset.Remove(in)
	if going.Held != "" || going.State == "" || len(going.Names) != 54 {
		t.Fatalf("approved: %+v", going)
	}
	// Killed halfway: the rest is still more than the guard allows.
	rest := in
	rest.Owned, rest.Underway = owned(numbers(20, 60), "first-"), going.State
	if again := appset.Remove(rest); again.Held != "" || again.State != going.State || len(again.Names) != 34 {
		t.Errorf("halfway: %+v", again)
	}
	other := rest
	other.Want = named(numbers(55, 60)...)
	if more := appset.Remove(other); more.Held == "" {
		t.Errorf("one more than was approved: %+v", more)
	}
	done := in
	done.Owned, done.Underway = owned(numbers(54, 60), "first-"), going.State
	if over := appset.Remove(done); over.Held != "" || over.State != "" || over.Names != nil {
		t.Errorf("done: %+v", over)
	}
	// All come back and leave again the same way; the annotation is still there.
	in.Owned = owned(numbers(0, 60), "second-")
	if again := appset.Remove(in); again.Held == "" {
		t.Errorf("an approval was used twice: %+v", again)
	}
}

func TestWhatIsNotUnderstoodRemovesNothing(t *testing.T) {
	t.Parallel()
	empty := appset.Remove(appset.In{Set: "shops", Empty: "spec.directories.pattern apps/* matches nothing", Owned: owned(numbers(0, 2), "")})
	if !strings.HasPrefix(empty.Held, "spec.directories.pattern apps/* matches nothing, which would remove 2 of 2 applications") || approval(t, empty) == "" {
		t.Errorf("%+v", empty)
	}
	if nothing := appset.Remove(appset.In{Set: "shops", Empty: "nothing"}); nothing.Held != "" {
		t.Errorf("nothing to lose: %+v", nothing)
	}
	broken := appset.Expand(template("", "{{nope}}"), appset.List([]v1alpha1.ApplicationSetEntry{entry("a")}))
	if kept := appset.Remove(appset.In{Set: "shops", Want: broken, Owned: owned([]string{"a"}, "")}); kept.Names != nil {
		t.Errorf("the Application of a broken entry goes: %+v", kept)
	}
	nameless := appset.Expand(template("{{values.x}}", "a"), appset.List([]v1alpha1.ApplicationSetEntry{entry("a"), entry("b", "x", "b")}))
	if kept := appset.Remove(appset.In{Set: "shops", Want: nameless, Owned: owned([]string{"a", "b"}, "")}); !strings.Contains(kept.Held, "the name of list entry a is not known") || len(kept.Names) != 1 {
		t.Errorf("%+v", kept)
	}
}

// What others add to an Application is theirs; what they change or take away is not as it was asked for.
func TestHolds(t *testing.T) {
	t.Parallel()
	set := &v1alpha1.ApplicationSet{ObjectMeta: metav1.ObjectMeta{Namespace: "slipway-system", Name: "shops", UID: "1"}}
	in := template("", "apps/{{name}}")
	in.Metadata.Labels = map[string]string{"team": "harbour"}
	in.Spec.DependsOn = []v1alpha1.Dependency{{Name: "db"}}
	in.Spec.Components = []string{"one", "two"}
	in.Spec.Helm = &v1alpha1.HelmSpec{Values: &apiextensionsv1.JSON{Raw: []byte(`{"n":3,"m":{"a":"b"}}`)}}
	object, err := appset.Expand(in, appset.List([]v1alpha1.ApplicationSetEntry{entry("a")})).Applications[0].Object(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*v1alpha1.Application)
		want   bool
	}{
		{"nothing", func(*v1alpha1.Application) {}, true},
		{"status", func(a *v1alpha1.Application) { a.Status.Objects = 3; a.ResourceVersion = "7" }, true},
		{"a suspension", func(a *v1alpha1.Application) { a.Spec.Suspend = true }, true},
		{"a label of others", func(a *v1alpha1.Application) { a.Labels["a"] = "b" }, true},
		{"one more dependency", func(a *v1alpha1.Application) {
			a.Spec.DependsOn = append([]v1alpha1.Dependency{{Name: "a"}}, a.Spec.DependsOn...)
		}, true},
		{"one more owner", func(a *v1alpha1.Application) {
			a.OwnerReferences = append(a.OwnerReferences, metav1.OwnerReference{UID: "2"})
		}, true},
		{"another path", func(a *v1alpha1.Application) { a.Spec.Path = "elsewhere" }, false},
		{"no label", func(a *v1alpha1.Application) { delete(a.Labels, manifests.LabelApplicationSet) }, false},
		{"another digest", func(a *v1alpha1.Application) { a.Annotations[manifests.AnnotationTemplated] = "x" }, false},
		{"no owner", func(a *v1alpha1.Application) { a.OwnerReferences = nil }, false},
		{"one dependency less", func(a *v1alpha1.Application) { a.Spec.DependsOn = nil }, false},
		{"one more component", func(a *v1alpha1.Application) { a.Spec.Components = append(a.Spec.Components, "three") }, false},
		{"other values", func(a *v1alpha1.Application) { a.Spec.Helm.Values.Raw = []byte(`{"n":4,"m":{"a":"b"}}`) }, false},
		{"more values", func(a *v1alpha1.Application) { a.Spec.Helm.Values.Raw = []byte(`{"n":3,"m":{"a":"b","c":1},"o":[]}`) }, true},
	} {
		var live v1alpha1.Application
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.DeepCopy().Object, &live); err != nil {
			t.Fatal(err)
		}
		live.TypeMeta = metav1.TypeMeta{}
		c.change(&live)
		if got, err := appset.Holds(&live, object); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
	set.Spec.Preserve = true
	kept, err := appset.Application{Name: "a", Spec: in.Spec}.Object(set)
	if err != nil || len(kept.GetOwnerReferences()) != 0 || kept.GetLabels()[manifests.LabelApplicationSet] != "shops" {
		t.Errorf("preserved: %v %v", kept, err)
	}
	other, err := appset.Application{Name: "a", Spec: template("", "b").Spec}.Object(set)
	if err != nil || other.GetAnnotations()[manifests.AnnotationTemplated] == kept.GetAnnotations()[manifests.AnnotationTemplated] {
		t.Errorf("two templates have one digest: %v", err)
	}
}
