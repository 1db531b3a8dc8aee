// Package follow says where in a repository a source stands: at the tip of a branch, at a tag, at
// the newest tag of a range of versions, or at one commit for good.
//
// It computes only: which refs there are is told by whoever lists them. A rule that says two things
// at once, or something that Git or semantic versioning does not know, is refused, never read halfway.
package follow

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/slipway-cd/slipway/gitsource"
)

// DefaultBranch is followed by a Rule that says nothing.
const DefaultBranch = "main"

const (
	branches = "refs/heads/"
	tags     = "refs/tags/"
)

// Rule is what a source follows: one of the fields, or none for the branch main.
type Rule struct {
	Branch string
	Tag    string
	Semver string // a range as Masterminds/semver reads it, such as ">=1.2 <2" or "~1.4"
	Commit string // a full object id
}

// Validate says what is wrong with a rule; nil if nothing is.
func (r Rule) Validate() error {
	var given []string
	for _, field := range []struct{ name, value string }{{"branch", r.Branch}, {"tag", r.Tag}, {"semver", r.Semver}, {"commit", r.Commit}} {
		if field.value != "" {
			given = append(given, field.name)
		}
	}
	if len(given) > 1 {
		return fmt.Errorf("%s are given; keep one of them", strings.Join(given, " and "))
	}
	switch {
	case r.Tag != "":
		return named("tag", r.Tag)
	case r.Semver != "":
		if _, err := semver.NewConstraint(r.Semver); err != nil {
			return fmt.Errorf("semver %q: it is no range of versions (%w); write for example >=1.2.0 <2.0.0", r.Semver, err)
		}
		return nil
	case r.Commit != "":
		if _, err := gitsource.ParseObjectID(r.Commit); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		return nil
	}
	return named("branch", r.branch())
}

func (r Rule) branch() string {
	if r.Branch == "" {
		return DefaultBranch
	}
	return r.Branch
}

// named has the rules of git check-ref-format for what stands behind refs/heads/ or refs/tags/.
func named(kind, name string) error {
	control := func(c rune) bool { return c < ' ' || c == 0x7f }
	if strings.HasPrefix(name, "-") || name == "@" || strings.HasSuffix(name, ".") || strings.Contains(name, "..") || strings.Contains(name, "@{") ||
		strings.ContainsAny(name, ` ~^:?*[\`) || strings.ContainsFunc(name, control) {
		return fmt.Errorf("%s %q: no ref can have this name (git check-ref-format)", kind, name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return fmt.Errorf("%s %q: no ref can have this name (git check-ref-format)", kind, name)
		}
	}
	return nil
}

// BranchName is the branch that is followed, to which commits can be pushed; empty where none is.
func (r Rule) BranchName() string {
	if r.Tag != "" || r.Semver != "" || r.Commit != "" {
		return ""
	}
	return r.branch()
}

// String says in words what is followed.
func (r Rule) String() string {
	switch {
	case r.Tag != "":
		return "tag " + r.Tag
	case r.Semver != "":
		return "tags in the range " + r.Semver
	case r.Commit != "":
		return "commit " + r.Commit
	}
	return "branch " + r.branch()
}

// Choose returns the full name of the ref to stand at, among those of the host. That a branch or tag
// is not there is found out by whoever looks it up. A rule for one commit has no ref.
func (r Rule) Choose(refs map[string]gitsource.ObjectID) (string, error) {
	switch {
	case r.Commit != "":
		return "", errors.New("a commit has no ref to choose")
	case r.Tag != "":
		return tags + r.Tag, nil
	case r.Semver != "":
		return newest(r.Semver, refs)
	}
	return branches + r.branch(), nil
}

// newest returns the tag of the highest version in a range. Tags that are no whole version, with or without
// a v before it, are passed over; pre-releases count only where the range names one. Of
// several spellings of one version the last by name counts, so that every agent takes the same.
func newest(within string, refs map[string]gitsource.ObjectID) (string, error) {
	constraint, err := semver.NewConstraint(within)
	if err != nil {
		return "", fmt.Errorf("semver %q: %w", within, err)
	}
	names := make([]string, 0, len(refs))
	for ref := range refs {
		if name, isTag := strings.CutPrefix(ref, tags); isTag {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var best *semver.Version
	chosen := ""
	for _, name := range names {
		version, err := semver.StrictNewVersion(strings.TrimPrefix(name, "v"))
		if err != nil || !constraint.Check(version) || (best != nil && version.LessThan(best)) {
			continue
		}
		best, chosen = version, name
	}
	if best == nil {
		return "", fmt.Errorf("%w: none of %d tags is a version in the range %s", gitsource.ErrNotFound, len(names), within)
	}
	return tags + chosen, nil
}
