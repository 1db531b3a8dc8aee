package policy_test

import (
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/policy"
)

// A name that a node resolves to the same registry must not slip past a pattern.
func TestRepository(t *testing.T) {
	for image, want := range map[string]string{
		"nginx":                                   "docker.io/library/nginx",
		"nginx:1.29":                              "docker.io/library/nginx",
		"grafana/grafana@sha256:00":               "docker.io/grafana/grafana",
		"index.docker.io/library/nginx":           "docker.io/library/nginx",
		"docker.io/nginx":                         "docker.io/library/nginx",
		"Registry.Example.com/shop/web:1":         "registry.example.com/shop/web",
		"registry.example.com:443/shop/web":       "registry.example.com/shop/web",
		"registry.example.com:5000/web:1@sha256:": "registry.example.com:5000/web",
		"localhost/web":                           "localhost/web",
		"127.0.0.1:5000/web":                      "127.0.0.1:5000/web",
	} {
		if got := policy.Repository(image); got != want {
			t.Errorf("%s: got %s, want %s", image, got, want)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"registry.example.com/shop/*", "registry.example.com/shop/web", true},
		{"registry.example.com/shop/*", "registry.example.com/shop/web/v2", false},
		{"registry.example.com/shop/*", "registry.example.com/shop", false},
		{"registry.example.com/**", "registry.example.com/shop/web/v2", true},
		{"registry.example.com/**", "registry.example.com", true},
		{"registry.example.com/**", "registry.example.com.evil.org/shop", false},
		{"**/web", "registry.example.com/shop/web", true},
		{"**", "registry.example.com/shop", true},
		{"*.example.com/**/web", "registry.example.com/a/b/web", true},
		{"registry.example.com/shop", "registry.example.com/shop2", false},
		{"[", "[", false},
		{"", "", true},
	} {
		if got := policy.Match(c.pattern, c.name); got != c.want {
			t.Errorf("%s of %s: got %v", c.pattern, c.name, got)
		}
	}
}

func TestRequirements(t *testing.T) {
	first, second := policy.Requirement{Policy: "first"}, policy.Requirement{Policy: "second"}
	all := policy.Coverages{List: []policy.Coverage{
		{Images: []string{"registry.example.com/**"}, Requirement: first},
		{Images: []string{"docker.io/library/*", "registry.example.com/shop/*"}, Requirement: second},
		{Images: []string{"registry.k8s.io/**"}, Unsigned: true},
	}}
	for image, want := range map[string]string{
		"registry.example.com/shop/web:1": "first second",
		"registry.example.com/till":       "first",
		"nginx":                           "second",
		"registry.k8s.io/pause:3.10":      "",
		"quay.io/some/thing":              "refused",
	} {
		for _, refuse := range []bool{true, false} {
			all.RefuseUncovered = refuse
			requirements, decision := all.Requirements(image)
			var got []string
			for _, r := range requirements {
				got = append(got, r.Policy)
			}
			if !decision.Allowed() {
				got = append(got, "refused")
			}
			expected := want
			if !refuse && want == "refused" {
				expected = ""
			}
			if strings.Join(got, " ") != expected {
				t.Errorf("%s (refuse uncovered: %v): got %q, want %q", image, refuse, got, expected)
			}
		}
	}
	if _, decision := (policy.Coverages{}).Requirements("nginx"); !decision.Allowed() {
		t.Error("without any policy nothing is refused")
	}
}
