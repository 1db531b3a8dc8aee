// Package environment reads slipway.yaml, Holds and Freezes, and says where they stand.
//
// It is the only place that knows these formats. It promises that a file is
// either understood completely or refused with file, line and cause: a key, gate
// or value that this version does not honour is an error, never ignored. It is
// pure: bytes in, values out.
package environment

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// DeliveryPath is where the Delivery stands in an environment repo.
const DeliveryPath = "slipway.yaml"

const apiVersion = "slipway.dev/v1alpha1"

// Delivery lists the Environments of an environment repo in the order of the file.
type Delivery struct {
	Environments []Environment
}

// Find returns the Environment called name. The error names the ones there are.
func (d Delivery) Find(name string) (Environment, error) {
	names := make([]string, 0, len(d.Environments))
	for _, e := range d.Environments {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	return Environment{}, fmt.Errorf("environment %q: not in %s (it has %s)", name, DeliveryPath, strings.Join(names, ", "))
}

// PromoteBy says how a Promotion gets into the followed branch.
type PromoteBy uint8

const (
	// PullRequest makes a request that a person merges. It is the zero value: forgetting to say must not skip a person.
	PullRequest PromoteBy = iota
	// Commit writes to the followed branch directly.
	Commit
)

func (b PromoteBy) String() string {
	if b == Commit {
		return "commit"
	}
	return "pullRequest"
}

// Environment is one place that versions are promoted to.
type Environment struct {
	Name string
	// After names the Environments that come before this one: a Promotion that
	// names no images copies from there. It is an order, not a gate.
	After []string
	Path  string // of an app's kustomization, from the root, with {app} in it
	By    PromoteBy
}

// AppPath returns the folder of app's kustomization in this Environment.
func (e Environment) AppPath(app string) string {
	return strings.ReplaceAll(e.Path, appPlaceholder, app)
}

// AppOf returns the app whose folder in this Environment holds the file at path; false if none does.
func (e Environment) AppOf(path string) (string, bool) {
	before, _, _ := strings.Cut(e.Path, appPlaceholder)
	rest, found := strings.CutPrefix(path, before)
	if !found {
		return "", false
	}
	name, _, _ := strings.Cut(rest, "/")
	for end := len(name); end > 0; end-- {
		app := name[:end]
		if CheckName("app", app) == nil && strings.HasPrefix(path, e.AppPath(app)+"/") {
			return app, true
		}
	}
	return "", false
}

const appPlaceholder = "{app}"

// HoldPath is the file with the Holds of app in environment.
func HoldPath(environment, app string) string {
	return ".slipway/holds/" + environment + "/" + app + ".yaml"
}

// FreezePath is the file that freezes environment.
func FreezePath(environment string) string { return ".slipway/freezes/" + environment + ".yaml" }

// ServerKeyPath is the file with the public key that the server signs its commits with, for agents whose sources take signed
// commits only.
const ServerKeyPath = ".slipway/server.pub"

// AgentKeyPath is the file with the public key of cluster's agent.
func AgentKeyPath(cluster string) string { return ".slipway/agents/" + cluster + ".pub" }

var namePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// CheckName says whether name may be part of paths and branches. Kind is the word for the error: "app", "cluster".
func CheckName(kind, name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%s %q: want 1 to 63 lower-case letters, digits and inner dashes", kind, name)
	}
	return nil
}

// Parse reads slipway.yaml. The error joins one *Error per fault found.
func Parse(content []byte) (Delivery, error) {
	r := reader{file: DeliveryPath}
	top := r.document(content, "Delivery", "environments")
	var d Delivery
	lines := map[string]int{}
	paths := map[string]string{}
	for _, n := range r.list(top["environments"], "environments") {
		e := r.environment(n)
		if first := lines[e.Name]; first != 0 && e.Name != "" {
			r.fail(n.Line, "environment %q is there already in line %d", e.Name, first)
			continue
		}
		if other := paths[e.Path]; other != "" && e.Path != "" {
			r.fail(n.Line, "environment %q has the path of %q: a promotion into one would change both", e.Name, other)
		}
		lines[e.Name], paths[e.Path] = n.Line, e.Name
		d.Environments = append(d.Environments, e)
	}
	if len(d.Environments) == 0 && len(r.faults) == 0 {
		r.fail(1, "no environments; list at least one under \"environments\"")
	}
	r.checkOrder(d, lines)
	if err := r.err(); err != nil {
		return Delivery{}, err
	}
	return d, nil
}

func (r *reader) environment(n *yaml.Node) Environment {
	f := r.fields(n, "an environment", "name", "after", "path", "promote", "gates")
	if f == nil {
		return Environment{}
	}
	e := Environment{Name: r.required(n, f, "name"), Path: r.required(n, f, "path")}
	if e.Name != "" {
		if err := CheckName("environment", e.Name); err != nil {
			r.fail(f["name"].Line, "%v", err)
		}
	}
	if e.Path != "" {
		r.checkPath(f["path"].Line, e.Path)
	}
	for _, a := range r.list(f["after"], "after") {
		e.After = append(e.After, r.text(a, "after"))
	}
	if p := f["promote"]; p != nil {
		e.By = r.promote(p)
	}
	for _, g := range r.list(f["gates"], "gates") {
		r.gate(g)
	}
	return e
}

func (r *reader) promote(n *yaml.Node) PromoteBy {
	f := r.fields(n, "promote", "by")
	if f == nil {
		return PullRequest
	}
	switch by := r.required(n, f, "by"); by {
	case "commit":
		return Commit
	case "pullRequest", "":
		return PullRequest
	default:
		r.fail(f["by"].Line, "promote.by %q: want \"commit\" or \"pullRequest\"", by)
		return PullRequest
	}
}

// gate refuses every gate by name: a gate that is not enforced is worse than none.
func (r *reader) gate(n *yaml.Node) {
	named := n
	if n.Kind == yaml.MappingNode && len(n.Content) > 0 {
		named = n.Content[0]
	}
	if named.Kind != yaml.ScalarNode {
		r.fail(n.Line, "a gate without a name is not honoured by this version; remove it")
		return
	}
	r.fail(named.Line, "gate %q is not honoured by this version; remove it", named.Value)
}

func (r *reader) checkPath(line int, path string) {
	if !strings.Contains(path, appPlaceholder) {
		r.fail(line, "path %q has no %s: every app would share it", path, appPlaceholder)
		return
	}
	plain := strings.ReplaceAll(path, appPlaceholder, "app")
	switch {
	case strings.ContainsAny(plain, "{}"):
		r.fail(line, "path %q: %s is the only placeholder", path, appPlaceholder)
	case strings.ContainsAny(plain, "\\\x00\n\r") || !fs.ValidPath(plain):
		r.fail(line, "path %q: want a path inside the repo, relative to its root, with \"/\", without \".\", \"..\" or empty parts", path)
	case plain == ".git" || strings.HasPrefix(plain, ".git/") || strings.HasPrefix(plain, ".slipway/"):
		r.fail(line, "path %q: .git and .slipway are not for apps", path)
	}
}
