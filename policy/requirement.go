package policy

import (
	"path"
	"slices"
	"strings"
)

// Key is a public key that images may be signed with.
type Key struct {
	Name string // for messages
	PEM  string
}

// Requirement is what an image has to show before it may run. The zero Requirement can never be met: it trusts no key.
type Requirement struct {
	Policy string // the policy that asks for it, for messages
	Keys   []Key  // the signature has to be by one of them
	// Provenance is what the build has to have been; nil where the signature is enough.
	Provenance *Provenance
}

// Provenance limits where an image may come from. An empty list leaves its part open.
type Provenance struct {
	Sources  []string // patterns of repository URLs
	Builders []string // patterns of builder ids, which name the isolation
}

// Coverage is an image policy: which images it covers and what it asks of them.
type Coverage struct {
	Images      []string // patterns of repositories, see Match
	Requirement Requirement
	// Unsigned asks nothing of the images; they only count as covered.
	Unsigned bool
}

// Coverages are all image policies of a cluster and its default.
type Coverages struct {
	List []Coverage
	// RefuseUncovered refuses images that no pattern covers. It is false where nobody has written a policy.
	RefuseUncovered bool
}

// Requirements returns what image has to meet: all of them. Uncovered images may be refused by the default.
func (c Coverages) Requirements(image string) ([]Requirement, Decision) {
	decision := Decision{Outcome: Allow, Rule: "image policies", Subject: "image " + image}
	repository, covered := Repository(image), false
	var requirements []Requirement
	for _, coverage := range c.List {
		if !slices.ContainsFunc(coverage.Images, func(pattern string) bool { return Match(pattern, repository) }) {
			continue
		}
		covered = true
		if !coverage.Unsigned {
			requirements = append(requirements, coverage.Requirement)
		}
	}
	if !covered && c.RefuseUncovered {
		decision.Outcome = Deny
		decision.Reason = "no image policy covers " + repository + ", and the policy 'default' refuses what is not covered; " +
			"add a policy whose images match it, or set spec.uncovered of 'default' to Allow"
	}
	return requirements, decision
}

// Repository returns the repository of an image reference, with the registry that its short forms stand for:
// "nginx:1.29" is "docker.io/library/nginx". Forms that a node resolves to the same registry give the same name.
func Repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	host, rest, found := strings.Cut(image, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, rest = "docker.io", image
	}
	if colon := strings.LastIndex(rest, ":"); colon > strings.LastIndex(rest, "/") {
		rest = rest[:colon]
	}
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	return host + "/" + rest
}

// Match reports whether a name made of segments between slashes matches pattern: within a segment as path.Match does it,
// and "**" stands for any number of segments, also none. A malformed pattern matches nothing.
func Match(pattern, name string) bool {
	return matchSegments(strings.Split(pattern, "/"), strings.Split(name, "/"))
}

func matchSegments(pattern, name []string) bool {
	for len(pattern) > 0 && pattern[0] != "**" {
		if len(name) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], name[0]); err != nil || !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	if len(pattern) == 0 {
		return len(name) == 0
	}
	for skip := 0; skip <= len(name); skip++ {
		if matchSegments(pattern[1:], name[skip:]) {
			return true
		}
	}
	return false
}
