package install_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/slipway-cd/slipway/manifests/install"
)

// TestDefinitionsOnlyGrow: what an older definition took, today's takes, too, and reads the same way. So objects in etcd and in Git
// need no conversion, and an older agent reads what a newer one has written.
func TestDefinitionsOnlyGrow(t *testing.T) {
	t.Parallel()
	now := map[string]*apiextensionsv1.CustomResourceDefinition{}
	crds, err := install.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range crds {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, crd); err != nil {
			t.Fatal(err)
		}
		now[crd.Name] = crd
	}
	before := olderDefinitions(t)
	if len(before) < 7 {
		t.Fatalf("only %d older definitions", len(before))
	}
	for _, old := range before {
		crd := now[old.Name]
		if crd == nil {
			t.Errorf("%s: is gone, and all its objects go with it", old.Name)
			continue
		}
		for _, version := range old.Spec.Versions {
			i := slices.IndexFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool {
				return v.Name == version.Name && v.Served
			})
			if i < 0 {
				t.Errorf("%s: version %s is not served any more", old.Name, version.Name)
				continue
			}
			for _, why := range narrower(version.Name, version.Schema.OpenAPIV3Schema, crd.Spec.Versions[i].Schema.OpenAPIV3Schema) {
				if harmless[old.Name+": "+why] == "" {
					t.Errorf("%s: %s", old.Name, why)
				}
			}
		}
	}
}

// harmless are rules that refuse nothing that an agent could ever make use of, with why.
var harmless = map[string]string{
	`applications.slipway.dev: v1alpha1.spec.timeout: has the rule "duration(self) >= duration('0s')" now`:                                                         "no durations: agents failed to read any Application then",
	`rollouts.slipway.dev: v1alpha1.spec.strategy: has the rule "[has(self.rolling), has(self.canary), has(self.blueGreen)].filter(given, given).size() == 1" now`: "rolling was required, and there was nothing else",
	`rollouts.slipway.dev: v1alpha1.spec.workloadRef: has the rule "has(self.kind) == has(oldSelf.kind) && (!has(self.kind) || self.kind == oldSelf.kind)" now`:    "there was one kind, so that none could change",
}

func olderDefinitions(t *testing.T) []*apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	file, err := os.Open("testdata/older.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []*apiextensionsv1.CustomResourceDefinition
	for decoder := yaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := decoder.Decode(crd); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if crd.Kind == "CustomResourceDefinition" {
			all = append(all, crd)
		}
	}
}

// narrower says in what a schema takes less than an older one did, or takes it in another way.
func narrower(at string, old, now *apiextensionsv1.JSONSchemaProps) (why []string) {
	say := func(format string, values ...any) { why = append(why, at+": "+fmt.Sprintf(format, values...)) }
	if old.Type != now.Type || old.Format != now.Format || old.XIntOrString != now.XIntOrString {
		say("was %s %s and is %s %s", old.Type, old.Format, now.Type, now.Format)
	}
	for _, name := range now.Required {
		if !slices.Contains(old.Required, name) {
			say("%s is required now", name)
		}
	}
	if len(now.Enum) > 0 {
		if len(old.Enum) == 0 {
			say("has an enum now")
		}
		for _, value := range old.Enum {
			if !slices.ContainsFunc(now.Enum, func(v apiextensionsv1.JSON) bool { return string(v.Raw) == string(value.Raw) }) {
				say("%s is not taken any more", value.Raw)
			}
		}
	}
	if now.Pattern != "" && now.Pattern != old.Pattern {
		say("has the pattern %s now", now.Pattern)
	}
	if less(old.MaxLength, now.MaxLength) || less(old.MaxItems, now.MaxItems) || less(old.MaxProperties, now.MaxProperties) || less(old.Maximum, now.Maximum) {
		say("takes less at most")
	}
	if more(old.MinLength, now.MinLength) || more(old.MinItems, now.MinItems) || more(old.MinProperties, now.MinProperties) || more(old.Minimum, now.Minimum) {
		say("takes less at least")
	}
	for _, rule := range now.XValidations {
		if !slices.ContainsFunc(old.XValidations, func(r apiextensionsv1.ValidationRule) bool { return r.Rule == rule.Rule }) {
			say("has the rule %q now", rule.Rule)
		}
	}
	if old.Default != nil && (now.Default == nil || string(old.Default.Raw) != string(now.Default.Raw)) {
		say("has another default")
	}
	for _, name := range slices.Sorted(maps.Keys(old.Properties)) {
		was := old.Properties[name]
		if is, there := now.Properties[name]; there {
			why = append(why, narrower(at+"."+name, &was, &is)...)
		} else {
			say("%s is dropped now", name)
		}
	}
	if old.Items != nil && now.Items != nil {
		why = append(why, narrower(at+"[]", old.Items.Schema, now.Items.Schema)...)
	}
	if old.AdditionalProperties != nil && now.AdditionalProperties != nil && old.AdditionalProperties.Schema != nil {
		why = append(why, narrower(at+"{}", old.AdditionalProperties.Schema, now.AdditionalProperties.Schema)...)
	}
	return why
}

// less says whether an upper bound, of which nil is none, is stricter now.
func less[N int64 | float64](old, now *N) bool {
	return now != nil && (old == nil || *now < *old)
}

// more says whether a lower bound, of which nil is none, is stricter now.
func more[N int64 | float64](old, now *N) bool {
	return now != nil && (old == nil || *now > *old)
}

// TestNarrowerIsSeen: the test above can fail.
func TestNarrowerIsSeen(t *testing.T) {
	t.Parallel()
	const old = `{"type": "object", "required": ["a"], "properties": {
		"a": {"type": "string", "maxLength": 9, "enum": ["x", "y"]}, "b": {"type": "array", "items": {"type": "string"}},
		"c": {"type": "integer", "minimum": 1, "default": 2}, "d": {"type": "object", "additionalProperties": {"type": "string"}}}}`
	for change, want := range map[string]string{
		`"a": {"type": "string"|"a": {"type": "integer"`: "v.a: was string",
		`["a"]|["a", "b"]`:              "v: b is required now",
		`["x", "y"]|["x"]`:              `v.a: "y" is not taken`,
		`"maxLength": 9|"maxLength": 8`: "v.a: takes less at most",
		`"minimum": 1|"minimum": 2`:     "v.c: takes less at least",
		`"items": {"type": "string"|"items": {"type": "string", "pattern": "."`: "v.b[]: has the pattern",
		`"default": 2|"default": 3`: "v.c: has another default",
		`"additionalProperties": {"type": "string"|"additionalProperties": {"type": "string", "minLength": 1`: "v.d{}: takes less at least",
		`"b": {|"bb": {`: "v: b is dropped",
		`"type": "integer", "minimum"|"type": "integer", "x-kubernetes-validations": [{"rule": "self > 2"}], "minimum"`: "v.c: has the rule",
	} {
		from, to, _ := strings.Cut(change, "|")
		got := narrower("v", schema(t, old), schema(t, strings.Replace(old, from, to, 1)))
		if len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("%s: %q, want %q", change, got, want)
		}
	}
	if got := narrower("v", schema(t, old), schema(t, strings.Replace(strings.Replace(old, `"maxLength": 9, `, "", 1), `["x", "y"]`, `["x", "y", "z"]`, 1))); len(got) > 0 {
		t.Errorf("what takes more: %q", got)
	}
}

func schema(t *testing.T, text string) *apiextensionsv1.JSONSchemaProps {
	t.Helper()
	props := &apiextensionsv1.JSONSchemaProps{}
	if err := json.Unmarshal([]byte(text), props); err != nil {
		t.Fatal(err)
	}
	return props
}
