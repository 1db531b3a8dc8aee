package e2e

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/slipway-cd/slipway"

// A layer says who may import a package. The zero value belongs to packages that nobody has placed yet.
type layer uint8

const (
	unplaced layer = iota
	value          // imports values only, does no I/O, reads no clock, logs nothing
	adapter        // imports values; imported by cmd only
	loop           // imports values; reaches adapters through its ports
	command        // imports everything; imported by nobody else
	system         // e2e: imports everything; imported by cmd and e2e
)

func (l layer) String() string {
	return [...]string{"unplaced package", "value", "adapter", "loop", "command", "e2e"}[l]
}

// layers places each package of the module; a name that ends in /... stands for everything below it.
var layers = map[layer][]string{
	value: {
		"gitsource", "gitsource/follow", "gitsource/forge", "gitsource/revert", "gitsource/signature", "gitsource/trailer",
		"manifests", "manifests/v1alpha1", "manifests/install", "manifests/typo",
		"reconciler/plan", "reconciler/expression", "reconciler/appset", "reconciler/notice", "rollout/analysis", "rollout/gateway",
		"promoter/edit", "promoter/environment", "promoter/undo",
		"builder", "builder/pipeline", "console/chain", "policy",
	},
	adapter: {
		"gitsource/gogit", "gitsource/oci", "gitsource/forge/bare", "gitsource/forge/gitea", "gitsource/forge/githubapp", "gitsource/forge/webhook", "manifests/render", "reconciler/apply", "reconciler/notice/deliver", "reconciler/report",
		"rollout/prom", "rollout/web", "builder/queue", "builder/sandbox", "builder/oci", "policy/sigstore", "policy/sigstore/proof",
		"console/client",
	},
	loop:    {"reconciler", "rollout", "promoter", "builder/run", "console"},
	command: {"cmd/..."},
	system:  {"e2e/..."},
}

// mayImport says which layers a package of a layer may import.
var mayImport = map[layer]struct {
	layers []layer
	reason string
}{
	value:   {[]layer{value}, "values are shared by every program, so they never import upward"},
	adapter: {[]layer{value}, "adapters know nothing of each other or of who uses them; cmd/internal/wire joins them"},
	loop:    {[]layer{value}, "loops meet in Git and in API objects, never by calling each other, and reach adapters through ports.go"},
	command: {[]layer{value, adapter, loop, command, system}, ""},
	system:  {[]layer{value, adapter, loop, command, system}, ""},
}

// heavy lists the dependencies that have one home each, so that they can be replaced and audited there.
var heavy = []struct {
	name     string
	prefixes []string
	homes    []string
}{
	{"OpenPGP", []string{"github.com/ProtonMail"}, []string{"gitsource/signature"}},
	{"go-git", []string{"github.com/go-git"}, []string{"gitsource/gogit"}},
	{"kustomize and Helm", []string{"sigs.k8s.io/kustomize", "helm.sh/helm"}, []string{"manifests/render"}},
	{"NATS", []string{"github.com/nats-io"}, []string{"builder/queue", "reconciler/report"}},
	{"registry I/O", []string{"github.com/google/go-containerregistry"}, []string{"gitsource/oci", "builder/oci", "policy/sigstore", "policy/sigstore/proof"}},
	{"sigstore", []string{"github.com/sigstore"}, []string{"policy/sigstore", "policy/sigstore/proof"}},
	{"cosign", []string{"github.com/sigstore/cosign"}, []string{"policy/sigstore/proof"}},
	{
		"Kubernetes clients",
		[]string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime", "github.com/fluxcd/pkg/runtime"},
		[]string{"reconciler", "rollout", "reconciler/apply", "builder/sandbox", "cmd/..."},
	},
	{"CEL", []string{"github.com/google/cel-go"}, []string{"reconciler/expression"}},
	{"cobra", []string{"github.com/spf13/cobra"}, []string{"cmd/..."}},
}

// agentLinks are the packages of promoter and builder that the agent binary may contain: an agent alone writes Holds and
// reverts itself. undo words a revert, with the trailers by which everybody recognises it, so that agent and server
// write the same one; like the others it computes and does nothing. builder itself, without what is below it, names the
// values that provenance is made of; it holds no code that builds.
var agentLinks = []string{"promoter/environment", "promoter/edit", "promoter/undo", "builder"}

// impure are the imports that values do without: files, network, logs and chance.
var impure = []string{
	"net", "net/http", "os", "os/exec", "os/signal", "os/user", "syscall", "io/ioutil", "database/sql",
	"log", "log/slog", "github.com/go-logr/logr", "k8s.io/klog/v2",
	"math/rand", "math/rand/v2", "crypto/rand",
}

// clock are the functions of package time that read or wait for the clock.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// topLevel are the folders that the root may hold beside hidden ones.
var topLevel = []string{"bin", "builder", "cmd", "console", "e2e", "gitsource", "manifests", "policy", "promoter", "reconciler", "rollout"}

// vague are folder names that say nothing about what is inside.
var vague = []string{"common", "helper", "helpers", "misc", "pkg", "shared", "util", "utils"}

func (u unit) layer() layer {
	for l, names := range layers {
		if among(u.name, names) {
			return l
		}
	}
	return unplaced
}

// among reports whether name is one of names, of which those that end in /... stand for everything below.
func among(name string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		below, deep := strings.CutSuffix(n, "/...")
		return name == below || deep && strings.HasPrefix(name, below+"/")
	})
}

// rules read one package each, except for the first two, which need to know the others.
var rules = []struct {
	name   string
	broken func(u unit, all map[string]unit) []string
}{
	{"each package has a place in the table of layers", placed},
	{"the agent links no more of promoter and builder than it needs to write a Hold and a revert", agentIsSmall},
	{"layers", importsDownward},
	{"one heavyweight dependency, one home", homes},
	{"values do no I/O, read no clock, log nothing", pure},
	{"each package says what it promises", func(u unit, _ map[string]unit) []string {
		if u.doc {
			return nil
		}
		return []string{"has no package comment: its reader has to guess what it promises and refuses"}
	}},
	{"nothing happens by importing", func(u unit, _ map[string]unit) []string {
		return prefixed("func init at ", u.inits, ": registration by import cannot be seen where it matters; let cmd/internal/wire call it")
	}},
	{"folders have names that say something", func(u unit, _ map[string]unit) (out []string) {
		for part := range strings.SplitSeq(u.name, "/") {
			if slices.Contains(vague, part) {
				out = append(out, "folder "+part+": such a name attracts what belongs elsewhere; name it after what it holds")
			}
		}
		return out
	}},
}

func placed(u unit, _ map[string]unit) []string {
	if u.layer() != unplaced {
		return nil
	}
	return []string{"is in no layer: decide who may import it and add it to the table"}
}

func agentIsSmall(u unit, all map[string]unit) (out []string) {
	if u.name != "cmd/slipway-agent" {
		return nil
	}
	via := map[string]string{u.name: u.name}
	for queue := []string{u.name}; len(queue) > 0; queue = queue[1:] {
		for _, i := range all[queue[0]].imports {
			name, ours := strings.CutPrefix(i, module+"/")
			if _, known := via[name]; !ours || known {
				continue
			}
			via[name] = via[queue[0]] + " > " + name
			queue = append(queue, name)
			if among(name, []string{"promoter/...", "builder/..."}) && !slices.Contains(agentLinks, name) {
				out = append(out, "links "+via[name]+": whoever takes over an agent must not find code there that promotes or builds")
			}
		}
	}
	return out
}

func importsDownward(u unit, all map[string]unit) (out []string) {
	from := u.layer()
	if from == unplaced {
		return nil
	}
	for _, i := range u.imports {
		name, ours := strings.CutPrefix(i, module+"/")
		if !ours {
			continue
		}
		if to := (unit{name: name}).layer(); to != unplaced && !slices.Contains(mayImport[from].layers, to) {
			out = append(out, fmt.Sprintf("(%s) imports %s (%s): %s", from, name, to, mayImport[from].reason))
		}
	}
	return out
}

func homes(u unit, _ map[string]unit) (out []string) {
	if u.layer() == system {
		return nil
	}
	for _, h := range heavy {
		for _, i := range u.imports {
			in := func(prefix string) bool { return i == prefix || strings.HasPrefix(i, prefix+"/") }
			if slices.ContainsFunc(h.prefixes, in) && !among(u.name, h.homes) {
				out = append(out, fmt.Sprintf("imports %s: %s has its home in %s, so that it can be replaced and audited there", i, h.name, strings.Join(h.homes, ", ")))
			}
		}
	}
	return out
}

func pure(u unit, _ map[string]unit) (out []string) {
	if u.layer() != value {
		return nil
	}
	for _, i := range u.imports {
		if slices.Contains(impure, i) {
			out = append(out, "imports "+i+": values in, values out; let an adapter or a loop do it")
		}
	}
	return append(out, prefixed("uses the clock: ", u.clocks, ": let the caller give the time, else the result cannot be repeated")...)
}

func prefixed(before string, all []string, after string) (out []string) {
	for _, s := range all {
		out = append(out, before+s+after)
	}
	return out
}

// check applies the rules and returns a sorted line for each breach.
func check(units []unit) (breaches []string) {
	all := map[string]unit{}
	for _, u := range units {
		all[u.name] = u
	}
	for _, r := range rules {
		for _, u := range units {
			for _, b := range r.broken(u, all) {
				breaches = append(breaches, u.name+" "+b+" ["+r.name+"]")
			}
		}
	}
	slices.Sort(breaches)
	return breaches
}

func TestArchitecture(t *testing.T) {
	units := load(t, nil)
	if len(units) < 10 {
		t.Fatalf("go list shows %d packages: the test looks at the wrong folder", len(units))
	}
	for _, b := range check(units) {
		t.Error(b)
	}
}

func TestTopLevelFolders(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("folder %s: the folders of the root are fixed; put it below one of %s", e.Name(), strings.Join(topLevel, ", "))
		}
	}
}

// The rules hold only if each of them can fail: forbidden code is laid over the real tree and has to be found.
func TestArchitectureFindsBreaches(t *testing.T) {
	const own = module + "/"
	file := func(pkg, imp string) string { return fmt.Sprintf("package %s\n\nimport _ %q\n", pkg, imp) }
	for name, c := range map[string]struct{ file, text, want string }{
		"value imports a loop":       {"reconciler/plan/x.go", file("plan", own+"rollout"), "reconciler/plan (value) imports rollout (loop): values are shared"},
		"value imports an adapter":   {"manifests/x.go", file("manifests", own+"manifests/render"), "manifests (value) imports manifests/render (adapter)"},
		"loop imports a loop":        {"rollout/x.go", file("rollout", own+"reconciler"), "rollout (loop) imports reconciler (loop): loops meet in Git"},
		"loop imports an adapter":    {"reconciler/x.go", file("reconciler", own+"reconciler/apply"), "reconciler (loop) imports reconciler/apply (adapter)"},
		"adapter imports an adapter": {"reconciler/apply/x.go", file("apply", own+"manifests/render"), "reconciler/apply (adapter) imports manifests/render (adapter)"},
		"value imports cmd":          {"policy/x.go", file("policy", own+"cmd/internal/wire"), "policy (value) imports cmd/internal/wire (command)"},
		"loop imports the test bed":  {"rollout/x.go", file("rollout", own+"e2e/cluster"), "rollout (loop) imports e2e/cluster (e2e)"},
		"second home of go-git":      {"promoter/x.go", file("promoter", "github.com/go-git/go-git/v5/plumbing"), "promoter imports github.com/go-git/go-git/v5/plumbing: go-git has its home in gitsource/gogit"},
		"client in a value":          {"rollout/analysis/x.go", file("analysis", "k8s.io/client-go/rest"), "Kubernetes clients has its home"},
		"network in a value":         {"reconciler/plan/x.go", file("plan", "net/http"), "reconciler/plan imports net/http: values in, values out"},
		"on another platform":        {"reconciler/plan/x_windows.go", file("plan", "os"), "reconciler/plan imports os"},
		"clock in a value":           {"policy/x.go", "package policy\n\nimport c \"time\"\n\nvar now = c.Now\n", "time.Now at policy/x.go:5"},
		"init":                       {"rollout/x.go", "package rollout\n\nfunc init() {}\n", "func init at rollout/x.go:3"},
		"vague folder without doc":   {"rollout/utils/x.go", "package utils\n", "rollout/utils folder utils: such a name"},
		"no package comment":         {"rollout/weather/x.go", "package weather\n", "rollout/weather has no package comment"},
		"no place":                   {"rollout/weather/x.go", "package weather\n", "rollout/weather is in no layer"},
		"agent that promotes":        {"cmd/slipway-agent/x.go", file("main", own+"promoter"), "cmd/slipway-agent links cmd/slipway-agent > promoter: whoever"},
	} {
		t.Run(name, func(t *testing.T) {
			breaches := check(load(t, map[string]string{c.file: c.text}))
			if !slices.ContainsFunc(breaches, func(b string) bool { return strings.Contains(b, c.want) }) {
				t.Errorf("%s holds\n%s\nwant a breach with %q, got\n%s", c.file, c.text, c.want, strings.Join(breaches, "\n"))
			}
		})
	}
}

// Two places for one package would make the answer depend on the order of a map.
func TestEachPackageHasOnePlace(t *testing.T) {
	seen := map[string]layer{}
	for _, l := range slices.Sorted(maps.Keys(layers)) {
		for _, name := range layers[l] {
			if other, ok := seen[name]; ok {
				t.Errorf("%s is %s and %s", name, other, l)
			}
			seen[name] = l
		}
	}
}
