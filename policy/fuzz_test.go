package policy_test

import (
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/policy"
)

// A repository is its own normal form, and is covered by itself, by its registry and by everything.
func FuzzRepository(f *testing.F) {
	for _, image := range []string{"nginx", "a/b:1@sha256:00", "localhost:5000/x", "Registry.Example.com:443/a/b:c", "::", "/", "@"} {
		f.Add(image)
	}
	f.Fuzz(func(t *testing.T, image string) {
		if strings.ContainsAny(image, `*?[\`) {
			t.Skip("no image reference, and a pattern means something else by it")
		}
		repository := policy.Repository(image)
		host, _, _ := strings.Cut(repository, "/")
		for _, pattern := range []string{"**", host + "/**", repository, "**/" + repository} {
			if !policy.Match(pattern, repository) {
				t.Errorf("%q is not covered by %q", repository, pattern)
			}
		}
		// Only what a registry would accept: one tag, one digest, lower case.
		if strings.Count(image, ":") > 1 || strings.Contains(image, "@") || strings.HasPrefix(image, ".") || strings.ContainsAny(image, " \n") || strings.Contains(image, "//") || strings.HasPrefix(image, "/") || strings.HasSuffix(image, "/") {
			return
		}
		if again := policy.Repository(repository); again != repository {
			t.Errorf("%q: normal form %q has the normal form %q", image, repository, again)
		}
	})
}
