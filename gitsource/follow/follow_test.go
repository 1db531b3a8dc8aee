package follow_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/follow"
)

func TestValidate(t *testing.T) {
	id := strings.Repeat("a", 40)
	for _, good := range []follow.Rule{
		{},
		{Branch: "main"},
		{Branch: "release/1.x"},
		{Tag: "v1.2.3"},
		{Tag: "shop/v1"},
		{Semver: ">=1.2.0 <2.0.0"},
		{Semver: "~1.4 || ^3"},
		{Commit: id},
	} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, bad := range []struct {
		rule follow.Rule
		want string
	}{
		{follow.Rule{Branch: "main", Tag: "v1"}, "branch and tag are given"},
		{follow.Rule{Tag: "v1", Semver: "1.x", Commit: id}, "tag and semver and commit are given"},
		{follow.Rule{Semver: "newest"}, `semver "newest"`},
		{follow.Rule{Commit: "abc"}, "want 40 or 64"},
		{follow.Rule{Commit: strings.Repeat("x", 40)}, "not hexadecimal"},
		{follow.Rule{Tag: "-v1"}, "no ref can have this name"},
		{follow.Rule{Tag: "a//b"}, "no ref can have this name"},
		{follow.Rule{Tag: "a.lock"}, "no ref can have this name"},
		{follow.Rule{Tag: ".a"}, "no ref can have this name"},
		{follow.Rule{Tag: "v1^{}"}, "no ref can have this name"},
		{follow.Rule{Branch: "a..b"}, "no ref can have this name"},
		{follow.Rule{Branch: "a\nb"}, "no ref can have this name"},
		{follow.Rule{Branch: "main@{1}"}, "no ref can have this name"},
	} {
		if err := bad.rule.Validate(); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%+v: got %v, want %q", bad.rule, err, bad.want)
		}
	}
}

func TestChoose(t *testing.T) {
	refs := map[string]gitsource.ObjectID{}
	for _, name := range []string{
		"refs/heads/main", "refs/heads/9.0.0", "refs/tags/v1.2.0", "refs/tags/v1.10.0", "refs/tags/1.9.0", "refs/tags/v2.0.0-rc.1",
		"refs/tags/v2.0.0", "refs/tags/v2.1.0-beta", "refs/tags/3.0.0", "refs/tags/v3.0.0", "refs/tags/v4", "refs/tags/nightly", "refs/tags/shop/v9.0.0",
	} {
		refs[name] = "x"
	}
	for _, c := range []struct {
		rule follow.Rule
		want string
	}{
		{follow.Rule{}, "refs/heads/main"},
		{follow.Rule{Branch: "dev"}, "refs/heads/dev"},
		{follow.Rule{Tag: "nightly"}, "refs/tags/nightly"},
		{follow.Rule{Semver: "^1"}, "refs/tags/v1.10.0"},
		{follow.Rule{Semver: "~1.9"}, "refs/tags/1.9.0"},
		{follow.Rule{Semver: ">=1.0.0 <3.0.0"}, "refs/tags/v2.0.0"},
		{follow.Rule{Semver: ">=2.1.0-0 <3.0.0-0"}, "refs/tags/v2.1.0-beta"},
		{follow.Rule{Semver: "*"}, "refs/tags/v3.0.0"},
	} {
		if got, err := c.rule.Choose(refs); err != nil || got != c.want {
			t.Errorf("%+v: got %q, %v, want %q", c.rule, got, err, c.want)
		}
	}
	_, err := follow.Rule{Semver: ">=5"}.Choose(refs)
	if !errors.Is(err, gitsource.ErrNotFound) || !strings.Contains(err.Error(), "none of 11 tags") {
		t.Errorf("no version in range: %v", err)
	}
}

// Only a branch can be pushed to.
func TestBranchName(t *testing.T) {
	for rule, want := range map[follow.Rule]string{
		{}: "main", {Branch: "dev"}: "dev", {Tag: "v1"}: "", {Semver: "1.x"}: "", {Commit: strings.Repeat("a", 40)}: "",
	} {
		if got := rule.BranchName(); got != want {
			t.Errorf("%s: got %q, want %q", rule, got, want)
		}
	}
}
