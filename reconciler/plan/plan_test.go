package plan_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-cd/slipway/manifests"
	"github.com/slipway-cd/slipway/reconciler/plan"
)

// update rewrites the expected parts: go test ./reconciler/plan -update
var update = flag.Bool("update", false, "rewrite the expected output of the stories")

// TestStories runs testdata/*.txt. A story is a comment, one line
//
//	plan want=(cm/a deploy/web:v2) owned=(cm/a:v1) live=(cm/a:fields=f2:by=kubectl-edit) absent=() unknown=() bundled=() ...
//
// and, below ----, the Plan as text or the error. Owned objects are live as
// they were applied unless live, absent or unknown say otherwise; all others are absent.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories found: %v", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var rewritten []string
		for i, story := range strings.Split(strings.TrimSpace(string(content)), "\n\n") {
			head, want, _ := strings.Cut(story, "\n----")
			title := strings.TrimPrefix(strings.SplitN(head, "\n", 2)[0], "# ")
			t.Run(fmt.Sprintf("%s/%d %s", filepath.Base(file), i, title), func(t *testing.T) {
				got := tell(t, head)
				if got != strings.TrimSpace(want) && !*update {
					t.Errorf("%s\ngot:\n%s\nwant:\n%s", head, got, want)
				}
				rewritten = append(rewritten, head+"\n----\n"+got)
			})
		}
		if *update && !t.Failed() {
			if err := os.WriteFile(file, []byte(strings.Join(rewritten, "\n\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// tell runs one story and returns what came out.
func tell(t *testing.T, head string) string {
	t.Helper()
	verb, in := parseStory(t, head)
	var p plan.Plan
	var err error
	if verb == "teardown" {
		p, err = plan.Teardown(in.Application, in.Seen, in.Owned, in.Claimed)
	} else {
		p, err = plan.Compute(in)
	}
	if err != nil {
		if !p.Empty() || p.Inventory != nil {
			t.Errorf("an error came with a plan:\n%s", p)
		}
		return "error: " + err.Error()
	}
	return strings.TrimSpace(p.String())
}

// parseStory reads the command line of a story, which may be broken over several lines.
func parseStory(t *testing.T, head string) (string, plan.In) {
	t.Helper()
	var lines []string
	for _, line := range strings.Split(head, "\n") {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	verb, rest, _ := strings.Cut(strings.Join(lines, " "), " ")
	in := plan.In{Application: "shop", Seen: plan.Observed{}, Owned: plan.Inventory{}, Options: plan.Options{Prune: true}}
	lists := map[string][]string{}
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimSpace(rest) {
		name, after, isList := strings.Cut(rest, "=(")
		if isList && !strings.Contains(name, " ") {
			inner, tail, closed := strings.Cut(after, ")")
			if !closed {
				t.Fatalf("no ) in %q", rest)
			}
			lists[name], rest = strings.Fields(inner), tail
			continue
		}
		word, tail, _ := strings.Cut(rest, " ")
		switch word {
		case "report":
			in.Options.Report = true
		case "noprune":
			in.Options.Prune = false
		case "approved":
			in.Options.Approved = true
		default:
			t.Fatalf("unknown option %q", word)
		}
		rest = tail
	}
	fill(t, &in, lists)
	return verb, in
}

// fill turns the lists of a story into values.
func fill(t *testing.T, in *plan.In, lists map[string][]string) {
	t.Helper()
	var objects []*unstructured.Unstructured
	for _, item := range expand(lists["want"]) {
		objects = append(objects, object(item))
		in.Seen[refOf(item)] = plan.Live{State: plan.Absent}
	}
	want, err := manifests.NewSet(objects)
	if err != nil {
		t.Fatal(err)
	}
	in.Want = want
	for _, item := range expand(lists["owned"]) {
		ref, mods := refOf(item), modifiers(item)
		digest, err := manifests.ObjectDigest(plan.Labelled(object(item), in.Application))
		if err != nil {
			t.Fatal(err)
		}
		entry := plan.Entry{Version: "v1", UID: "u1", Want: digest, Fields: "f1"}
		if uid, set := mods["uid"]; set {
			entry.UID = uid
		}
		_, entry.Bundled = mods["bundled"]
		_, entry.Done = mods["done"]
		in.Owned[ref] = entry
		in.Seen[ref] = live(map[string]string{})
	}
	for _, item := range expand(lists["live"]) {
		in.Seen[refOf(item)] = live(modifiers(item))
	}
	for _, item := range expand(lists["absent"]) {
		in.Seen[refOf(item)] = plan.Live{State: plan.Absent}
	}
	for _, item := range lists["unknown"] {
		in.Seen[refOf(item)] = plan.Live{Why: modifiers(item)["why"]}
	}
	in.Bundled, in.InUse, in.Weight = map[manifests.Ref]bool{}, map[manifests.Ref]string{}, map[manifests.Ref]int{}
	for _, item := range lists["bundled"] {
		in.Bundled[refOf(item)] = true
	}
	in.Yielded, in.Claimed = map[manifests.Ref]bool{}, map[manifests.Ref]string{}
	for _, item := range lists["yielded"] {
		in.Yielded[refOf(item)] = true
	}
	in.Contested = map[manifests.Ref]bool{}
	for _, item := range lists["contested"] {
		in.Contested[refOf(item)] = true
	}
	for _, item := range lists["claimed"] {
		in.Claimed[refOf(item)] = modifiers(item)["by"]
	}
	for _, item := range lists["inuse"] {
		in.InUse[refOf(item)] = "used by the stable version"
	}
	for _, item := range lists["weight"] {
		if _, err := fmt.Sscan(modifiers(item)["n"], new(int)); err != nil {
			t.Fatal(err)
		}
		n := 0
		_, _ = fmt.Sscan(modifiers(item)["n"], &n)
		in.Weight[refOf(item)] = n
	}
}

// expand turns cm/a1..3 into cm/a1 cm/a2 cm/a3.
func expand(items []string) []string {
	var result []string
	for _, item := range items {
		prefix, last, isRange := strings.Cut(item, "1..")
		var n int
		if _, err := fmt.Sscan(last, &n); !isRange || err != nil {
			result = append(result, item)
			continue
		}
		for i := 1; i <= n; i++ {
			result = append(result, fmt.Sprintf("%s%d", prefix, i))
		}
	}
	return result
}

func refOf(item string) manifests.Ref {
	name, _, _ := strings.Cut(item, ":")
	kind, name, _ := strings.Cut(name, "/")
	switch kind {
	case "ns":
		return manifests.Ref{Kind: "Namespace", Name: name}
	case "crd":
		return manifests.Ref{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Name: name}
	case "deploy":
		return manifests.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: name}
	case "job":
		return manifests.Ref{Group: "batch", Kind: "Job", Namespace: "shop", Name: name}
	case "pvc":
		return manifests.Ref{Kind: "PersistentVolumeClaim", Namespace: "shop", Name: name}
	case "app":
		return manifests.Ref{Group: "slipway.dev", Kind: "Application", Namespace: "shop", Name: name}
	default:
		return manifests.Ref{Kind: "ConfigMap", Namespace: "shop", Name: name}
	}
}

// modifiers reads what follows the name: "deploy/web:v2:wave=1". A modifier without value is a content version or a flag.
func modifiers(item string) map[string]string {
	mods := map[string]string{}
	for _, mod := range strings.Split(item, ":")[1:] {
		key, value, _ := strings.Cut(mod, "=")
		if strings.HasPrefix(key, "v") && value == "" {
			key, value = "content", key
		}
		mods[key] = value
	}
	return mods
}

func object(item string) *unstructured.Unstructured {
	ref, mods := refOf(item), modifiers(item)
	o := &unstructured.Unstructured{Object: map[string]any{"data": map[string]any{"content": mods["content"]}}}
	o.SetAPIVersion(strings.TrimPrefix(ref.Group+"/v1", "/"))
	o.SetKind(ref.Kind)
	o.SetNamespace(ref.Namespace)
	o.SetName(ref.Name)
	if _, set := mods["ttl"]; set {
		o.Object["spec"] = map[string]any{"ttlSecondsAfterFinished": int64(10)}
	}
	if wave, set := mods["wave"]; set {
		o.SetAnnotations(map[string]string{manifests.AnnotationWave: wave})
	}
	if app, set := mods["app"]; set {
		o.SetLabels(map[string]string{manifests.LabelApplication: app})
	}
	return o
}

// live is as applied by us, but for the modifiers.
func live(mods map[string]string) plan.Live {
	l := plan.Live{
		State: plan.Present, UID: "u1", Ours: true, Fields: "f1", Application: "shop",
		Managers: []plan.Manager{{Name: manifests.FieldManager, Operation: "Apply"}},
		Prune:    mods["prune"], Wave: mods["wave"],
	}
	if fields, set := mods["fields"]; set {
		l.Fields = manifests.Digest(fields)
	}
	if uid, set := mods["uid"]; set {
		l.UID = uid
	}
	if app, set := mods["app"]; set {
		l.Application = app
	}
	if _, set := mods["foreign"]; set {
		l.Ours, l.Fields, l.Application, l.Managers = false, "", "", nil
	}
	if by, set := mods["by"]; set {
		l.Managers = append(l.Managers, plan.Manager{Name: by, Operation: "Update"})
	}
	if _, set := mods["rollout"]; set {
		l.Managers = []plan.Manager{{Name: manifests.RolloutManager, Operation: "Apply"}}
		l.Ours, l.Fields = false, ""
	}
	_, l.Deleting = mods["deleting"]
	_, l.Completed = mods["completed"]
	return l
}
