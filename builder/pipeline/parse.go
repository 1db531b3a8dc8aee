package pipeline

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/slipway-cd/slipway/manifests/typo"
)

// Bounds of one definition: far above what people write, and far below what would hurt a server.
const (
	maxStages  = 200
	maxSteps   = 100
	maxRetries = 10
	maxTimeout = 24 * time.Hour
)

var (
	stageName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	envName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// actions are what a step may use, with the keys of `with`; those that end in ! must be there.
var actions = map[string][]string{ //nolint:gochecknoglobals // a closed list
	Checkout: {},
	GoImage:  {"repository!", "package", "base", "platforms", "tags", "ldflags", "labels"},
	Promote:  {"app!", "image"},
}

// Parse reads a definition. The error joins one *Error per fault, in the order of the file.
func Parse(content []byte) (Pipeline, error) {
	r := &reader{}
	top := r.document(content)
	if top == nil {
		return Pipeline{}, r.err()
	}
	p := r.pipeline(top)
	if err := r.err(); err != nil {
		return Pipeline{}, err
	}
	return p, nil
}

func (r *reader) pipeline(top *yaml.Node) Pipeline {
	f := r.fields(top, "the file", "name", "trigger", "isolation", "env", "stages")
	if f == nil {
		return Pipeline{}
	}
	p := Pipeline{Name: r.name(top, f["name"], "name"), Env: r.env(f["env"])}
	p.Trigger.Branches = r.branches(f["trigger"])
	if n := f["isolation"]; n != nil {
		p.Isolation = Isolation(r.text(n, "isolation"))
		if p.Isolation != Isolated && n.Tag == "!!str" {
			r.fail(n, "isolation %q (%s)", n.Value, typo.WayOut(n.Value, []string{string(Isolated)}))
		}
	}
	stages := r.list(f["stages"], "stages")
	if len(stages) == 0 && (f["stages"] == nil || empty(f["stages"]) || f["stages"].Kind == yaml.SequenceNode) {
		r.fail(top, "no stages (a pipeline needs at least one, with steps)")
	}
	if len(stages) > maxStages {
		r.fail(stages[maxStages], "more than %d stages (put several commands into one stage)", maxStages)
		return p
	}
	lines := map[string]int{}
	var nodes []*yaml.Node // of p.Stages
	for _, n := range stages {
		s := r.stage(n)
		if first := lines[s.Name]; s.Name != "" && first != 0 {
			r.fail(n, "stage %q is there already in line %d (choose another name)", s.Name, first)
			continue
		}
		lines[s.Name] = n.Line
		p.Stages, nodes = append(p.Stages, s), append(nodes, n)
	}
	r.graph(p, nodes)
	return p
}

// name reads a required name that may be part of subjects, paths and branches.
func (r *reader) name(parent, n *yaml.Node, what string) string {
	if n == nil {
		r.fail(parent, "%q is missing (add %s: and 1 to 63 of a-z, 0-9 and -)", what, what)
		return ""
	}
	name := r.text(n, what)
	if n.Tag == "!!str" && !stageName.MatchString(name) {
		r.fail(n, "%s %q: want 1 to 63 of a-z, 0-9 and -, with no - at the ends", what, name)
	}
	return name
}

func (r *reader) env(n *yaml.Node) map[string]string {
	return r.texts(n, "env", func(key *yaml.Node) {
		if !envName.MatchString(key.Value) {
			r.fail(key, "env: %q is not the name of a variable (letters, digits and _, and no digit first)", key.Value)
		}
	})
}

func (r *reader) branches(n *yaml.Node) []string {
	branches := []string{"main"}
	if empty(n) {
		return branches
	}
	f := r.fields(n, "trigger", "branches")
	list := r.list(f["branches"], "trigger.branches")
	if f["branches"] != nil && len(list) == 0 {
		r.fail(n, "trigger.branches is empty, so that nothing would ever run (leave it out for main)")
	}
	if len(list) > 0 {
		branches = nil
	}
	for _, item := range list {
		pattern := r.text(item, "branch")
		if strings.HasPrefix(pattern, "refs/") {
			r.fail(item, "branch %q: want the name without refs/heads/", pattern)
		}
		if strings.ContainsAny(pattern, "[\\^~: \t\n") { // Git allows none of them in a name
			r.fail(item, "branch %q would match no branch (patterns know *, ** and ?, and neither sets nor escapes)", pattern)
		}
		if strings.HasPrefix(pattern, "!") {
			r.fail(item, "branch %q: patterns exclude nothing (list the branches that are wanted; write ? for a name that begins with !)", pattern)
		}
		if blank(item) {
			r.fail(item, "branch is empty (remove it)")
		}
		if len(pattern) > 250 {
			r.fail(item, "branch is longer than 250 bytes (shorten it with *)")
		}
		branches = append(branches, pattern)
	}
	return branches
}

func (r *reader) stage(n *yaml.Node) Stage {
	s := Stage{Line: n.Line, Timeout: DefaultTimeout}
	f := r.fields(n, "a stage", "name", "needs", "image", "environment", "env", "network", "timeout", "retries", "steps")
	if f == nil {
		return s
	}
	s.Name = r.name(n, f["name"], "name")
	for _, need := range r.list(f["needs"], "needs") {
		s.Needs = append(s.Needs, r.text(need, "needs"))
	}
	s.Image = r.text(f["image"], "image")
	if strings.ContainsAny(s.Image, " \t\n") {
		r.fail(f["image"], "image %q holds a space (want REGISTRY/NAME@sha256:... or REGISTRY/NAME:TAG)", s.Image)
	}
	if f["environment"] != nil {
		s.Environment = r.name(n, f["environment"], "environment")
	}
	s.Env = r.env(f["env"])
	s.Network = r.flag(f["network"], "network")
	s.Retries = r.number(f["retries"], "retries", maxRetries)
	if t := f["timeout"]; t != nil {
		s.Timeout = r.timeout(t)
	}
	steps := r.list(f["steps"], "steps")
	if len(steps) == 0 && (empty(f["steps"]) || f["steps"].Kind == yaml.SequenceNode) {
		r.fail(n, "stage %s has no steps (give it one with run or uses)", s.Name)
	}
	if len(steps) > maxSteps {
		r.fail(steps[maxSteps], "more than %d steps in a stage (put commands into a script)", maxSteps)
		steps = nil
	}
	for _, step := range steps {
		s.Steps = append(s.Steps, r.step(step))
	}
	r.promotion(n, f, s)
	return s
}

func (r *reader) timeout(n *yaml.Node) time.Duration {
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || d <= 0 || d > maxTimeout {
		r.fail(n, "timeout is %s; want a duration up to 24h, such as 90s or 10m", kindOf(n))
		return DefaultTimeout
	}
	return d
}

func (r *reader) step(n *yaml.Node) Step {
	s := Step{Line: n.Line}
	f := r.fields(n, "a step", "name", "run", "uses", "with", "env")
	if f == nil {
		return s
	}
	s.Name, s.Run, s.Uses = r.text(f["name"], "name"), r.text(f["run"], "run"), r.text(f["uses"], "uses")
	s.Env = r.env(f["env"])
	switch {
	case f["run"] != nil && f["uses"] != nil:
		r.fail(f["uses"], "a step with both run and uses (make it two steps)")
	case f["run"] == nil && f["uses"] == nil:
		r.fail(n, "a step with neither run nor uses (give it a command to run, or something to use)")
	case f["run"] != nil && strings.TrimSpace(s.Run) == "" && f["run"].Tag == "!!str":
		r.fail(f["run"], "run is empty (give it a command, or remove the step)")
	case f["run"] != nil && f["with"] != nil:
		r.fail(f["with"], "with belongs to uses (pass values to a command by env)")
	case f["uses"] != nil:
		s.With = r.with(n, f["uses"], f["with"], s.Uses)
		if len(s.Env) > 0 && s.Uses != GoImage {
			r.fail(f["env"], "env has no effect on %s (remove it)", s.Uses)
		}
	}
	if s.Name == "" {
		s.Name = s.Uses
	}
	if s.Name == "" {
		s.Name, _, _ = strings.Cut(strings.TrimSpace(s.Run), "\n")
	}
	return s
}

// with checks the values that go with an action.
func (r *reader) with(step, uses, n *yaml.Node, action string) map[string]string {
	names := []string{Checkout, GoImage, Promote}
	keys, known := actions[action]
	if !known {
		if uses.Tag == "!!str" {
			r.fail(uses, "unknown action %q (%s)", action, typo.WayOut(action, names))
		}
		return nil
	}
	var all, required []string
	for _, key := range keys {
		name, must := strings.CutSuffix(key, "!")
		all = append(all, name)
		if must {
			required = append(required, name)
		}
	}
	with := r.texts(n, "with", func(key *yaml.Node) {
		if !slices.Contains(all, key.Value) {
			r.fail(key, "unknown key %q in with of %s (%s)", key.Value, action, typo.WayOut(key.Value, all))
		}
	})
	for _, name := range required {
		if _, there := with[name]; !there {
			at := step
			if !empty(n) {
				at = n
			}
			r.fail(at, "%s needs with.%s (add it)", action, name)
		} else if value := valueOf(n, name); blank(value) {
			r.fail(value, "with.%s of %s is empty (give it a value)", name, action)
		}
	}
	return with
}

// promotion checks what a stage that promotes may be, and that no other one claims to.
func (r *reader) promotion(n *yaml.Node, f map[string]*yaml.Node, s Stage) {
	promotes := slices.ContainsFunc(s.Steps, func(step Step) bool { return step.Uses == Promote })
	if !promotes {
		if f["environment"] != nil {
			r.fail(f["environment"], "environment is for a stage that uses promote (remove it, or add the step)")
		}
		return
	}
	if len(s.Steps) > 1 {
		r.fail(f["steps"], "promote stands alone in its stage, because the server carries it out (move the other steps to a stage before)")
	}
	if f["environment"] == nil {
		r.fail(n, "stage %s promotes, and names no environment", s.Name)
	}
	for _, key := range []string{"image", "network", "env"} {
		if f[key] != nil {
			r.fail(f[key], "%s has no effect on promote (remove it)", key)
		}
	}
}
