package gateway_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/slipway-cd/slipway/rollout/gateway"
)

var update = flag.Bool("update", false, "write the golden files anew")

func read(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	route := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &route.Object); err != nil {
		t.Fatal(err)
	}
	return route
}

// phases are the shares that a canary goes through, in order.
func phases() map[string]gateway.Share {
	share := func(weight int, header string) gateway.Share {
		s := gateway.Share{Services: []string{"web", "api"}, Weight: weight}
		if header != "" {
			s.Header, s.Value = "x-canary", header
		}
		return s
	}
	return map[string]gateway.Share{
		"1-starts": share(0, ""), "2-header": share(0, "yes"), "3-header-and-weight": share(25, "yes"),
		"4-weight": share(25, ""), "5-all": share(100, ""), "6-failed": share(0, ""),
	}
}

// A Route with rules, filters and backends that are none of the Rollout's.
func TestEdit(t *testing.T) {
	for _, name := range []string{"httproute", "grpcroute"} {
		source, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for phase, share := range phases() {
			t.Run(name+"/"+phase, func(t *testing.T) {
				route := read(t, string(source))
				edited, err := gateway.Edit(route, share)
				if err != nil {
					t.Fatal(err)
				}
				got, err := yaml.Marshal(edited.Object)
				if err != nil {
					t.Fatal(err)
				}
				if again, err := yaml.Marshal(route.Object); err != nil || len(again) != len(must(yaml.Marshal(read(t, string(source)).Object))) {
					t.Errorf("what stands in Git was changed: %v", err)
				}
				golden := filepath.Join("testdata", name+"-"+phase+".golden")
				if *update {
					if err := os.WriteFile(golden, got, 0o644); err != nil { //nolint:gosec // a test's file
						t.Fatal(err)
					}
				}
				if want := string(must(os.ReadFile(golden))); string(got) != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		}
	}
}

func must(content []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return content
}

func TestEditRefuses(t *testing.T) {
	rules := func(rules string) string {
		return "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: web, namespace: shop}, spec: {rules: [" + rules + "]}}"
	}
	for name, c := range map[string]struct {
		route string
		share gateway.Share
		want  string
	}{
		"no rules":             {rules(""), gateway.Share{Services: []string{"web"}}, "no rule sends to the Rollout's Services (web)"},
		"another Service":      {rules("{backendRefs: [{name: other}]}"), gateway.Share{Services: []string{"web"}}, "HTTPRoute shop/web"},
		"of another namespace": {rules("{backendRefs: [{name: web, namespace: other}]}"), gateway.Share{Services: []string{"web"}}, "spec.services"},
		"another kind":         {rules("{backendRefs: [{name: web, kind: Bucket, group: storage}]}"), gateway.Share{Services: []string{"web"}}, "no rule"},
		"weights too large":    {rules("{backendRefs: [{name: web, weight: 999999}, {name: b, weight: 999983}]}"), gateway.Share{Services: []string{"web"}, Weight: 3}, "the API takes 1000000"},
		"too many rules":       {rules(strings.Repeat("{backendRefs: [{name: web}]},", 9)), gateway.Share{Services: []string{"web"}, Header: "a", Value: "b"}, "it has 18 rules"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := gateway.Edit(read(t, c.route), c.share); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// The shares of all backends of a rule are what they were, and the two versions have together what the Service had.
func FuzzShares(f *testing.F) {
	f.Add(uint16(1), uint16(1), uint8(10))
	f.Add(uint16(90), uint16(0), uint8(1))
	f.Add(uint16(0), uint16(7), uint8(99))
	f.Fuzz(func(t *testing.T, ours, others uint16, weight uint8) {
		ours, others, weight = ours%1000, others%1000, weight%101
		route := &unstructured.Unstructured{Object: map[string]any{
			"kind": "HTTPRoute", "metadata": map[string]any{"name": "web"},
			"spec": map[string]any{"rules": []any{map[string]any{"backendRefs": []any{
				map[string]any{"name": "web", "weight": int64(ours)}, map[string]any{"name": "other", "weight": int64(others)},
			}}}},
		}}
		edited, err := gateway.Edit(route, gateway.Share{Services: []string{"web"}, Weight: int(weight)})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int64{}
		rules, _, _ := unstructured.NestedSlice(edited.Object, "spec", "rules")
		refs, _, _ := unstructured.NestedSlice(rules[0].(map[string]any), "backendRefs")
		for _, ref := range refs {
			got[ref.(map[string]any)["name"].(string)] = ref.(map[string]any)["weight"].(int64)
		}
		stable, canary, other := got["web-stable"], got["web-canary"], got["other"]
		if (stable+canary)*int64(others) != other*int64(ours) {
			t.Errorf("%d and %d against %d, and it was %d against %d", stable, canary, other, ours, others)
		}
		if canary*(100-int64(weight)) != stable*int64(weight) {
			t.Errorf("%d and %d are not %d%%", stable, canary, weight)
		}
	})
}
