package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-cd/slipway/cmd/internal/wire"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
)

// branch pushes a branch with changes on top of a commit, the tip if it is empty.
func (d *deck) branch(name string, on gitsource.ObjectID, changes ...gitsource.Change) gitsource.ObjectID {
	d.Helper()
	if on == "" {
		tip, err := d.Tip(d.Context())
		d.must(err)
		on = tip
	}
	commit, err := d.CommitOn(d.Context(), on, "Change "+name, changes...)
	d.must(err)
	ref := name
	if !strings.HasPrefix(ref, "refs/") {
		ref = "refs/heads/" + name
	}
	d.must(d.Repo.Push(d.Context(), ref, "", commit))
	return commit
}

// of finds what was said of one object.
func of(diff applicationDiff, object string) wire.Difference {
	at := slices.IndexFunc(diff.Differences, func(d wire.Difference) bool { return d.Object == object })
	if at < 0 {
		return wire.Difference{}
	}
	return diff.Differences[at]
}

// With --ref alone, only what it touches is shown, as it will be once it is merged.
func TestDiffOfABranch(t *testing.T) {
	d := newDeck(t)
	d.application("branched", "", map[string]string{"production/settings.yaml": settings, "production/web.yaml": workload})
	base := d.application("beside", "", map[string]string{"production/settings.yaml": settings})
	d.slipway(exitDone, "diff", "branched", "beside")
	// Main goes on: the branch, which does not know of it, would not take that back.
	_, err := d.Commit(d.Context(), "Go on", world.Write("apps/branched/production/web.yaml", strings.Replace(workload, "replicas: 2", "replicas: 3", 1)))
	d.must(err)
	d.slipway(exitDone, "reconcile", "branched", "--source", "--wait")
	head := d.branch("louder", base,
		world.Write("apps/branched/production/settings.yaml", strings.Replace(settings, "info", "debug", 1)),
		world.Write("apps/branched/production/more.yaml", strings.Replace(settings, "settings", "more", 1)))
	var diffs []applicationDiff
	d.read(exitNo, &diffs, "diff", "--ref", "louder")
	if len(diffs) != 1 || diffs[0].Application != "branched" || diffs[0].Environment != "production" || diffs[0].Revision != string(head) || diffs[0].Unchanged != 1 {
		t.Fatalf("touched: %+v", diffs)
	}
	if got := of(diffs[0], "ConfigMap branched/settings"); got.Verb != "change" || len(got.Fields) != 1 || got.Fields[0] != `data.level: "info" -> "debug"` {
		t.Errorf("changed: %+v", got)
	}
	if got := of(diffs[0], "ConfigMap branched/more"); got.Verb != "create" {
		t.Errorf("created: %+v", got)
	}
	d.says(d.slipway(exitNo, "diff", "--ref", string(head)), "branched: 1 to create, 1 to change", "+ ConfigMap branched/more")
	d.says(d.slipway(exitNo, "diff", "--ref", "louder", "--all", "--path", "apps/branched"), "1 to create")
	d.says(d.slipway(exitDone, "diff", "--ref", "louder", "--path", "apps/beside"), "no Application is touched")
	d.says(d.slipway(exitDone, "diff", "--ref", "louder", "--env", "nowhere"), "no Application is touched")
	d.says(d.slipway(exitDone, "diff", "--ref", "louder", "beside"), "beside: no differences")

	// A pull request is a ref like another; one that conflicts cannot be shown.
	d.branch("refs/pull/7/head", base, world.Write("apps/branched/production/web.yaml", strings.Replace(workload, "replicas: 2", "replicas: 5", 1)))
	d.says(d.slipway(exitFailed, "diff", "--ref", "refs/pull/7/head"), "cannot be merged into main", "apps/branched/production/web.yaml")
	d.says(d.slipway(exitFailed, "diff", "--ref", "nothing-there"), "neither a branch nor a commit")
	d.says(d.slipway(exitFailed, "diff", "--ref", "louder", "nobody"), "nobody")
}

// What left Git is deleted, or kept with the reason, and too much of it waits for a person.
func TestDiffOfPrunes(t *testing.T) {
	d := newDeck(t)
	files := map[string]string{"production/token.yaml": token}
	for i := range 11 {
		files[fmt.Sprintf("production/%d.yaml", i)] = strings.Replace(settings, "settings", fmt.Sprintf("s%d", i), 1)
	}
	files["production/claim.yaml"] = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: disk}\n" +
		"spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n"
	d.push("pruned", "", files)
	d.eventually(func() error {
		app, err := d.Application(d.Context(), "pruned")
		if err == nil && app.Status.Objects != len(files) {
			err = fmt.Errorf("%d objects", app.Status.Objects)
		}
		return err
	})
	few := d.branch("few", "", world.Remove("apps/pruned/production/0.yaml"), world.Remove("apps/pruned/production/claim.yaml"))
	var diffs []applicationDiff
	d.read(exitNo, &diffs, "diff", "--ref", "few")
	if got := of(diffs[0], "ConfigMap pruned/s0"); got.Verb != "delete" || diffs[0].Held != "" {
		t.Errorf("deleted: %+v", diffs[0])
	}
	if got := of(diffs[0], "PersistentVolumeClaim pruned/disk"); got.Verb != "keep" || !strings.Contains(got.Note, "slipway.dev/prune") {
		t.Errorf("kept: %+v", got)
	}
	var changes []gitsource.Change
	for i := range 11 {
		changes = append(changes, world.Remove(fmt.Sprintf("apps/pruned/production/%d.yaml", i)))
	}
	d.branch("many", few, changes[1:]...)
	d.says(d.slipway(exitNo, "diff", "--ref", "many"), "held: would delete 11 of 13 objects", "approve-prune", "11 to delete, 1 kept although it left Git; held")
}

// Values of Secrets stand nowhere: not in Secrets, nor where they were copied to.
func TestDiffMasks(t *testing.T) {
	d := newDeck(t)
	copied := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: copied, annotations: {was: VALUE}}\ndata:\n  plain: user:VALUE@host\n  encoded: BASE\n"
	with := func(value, base string) string {
		return strings.NewReplacer("VALUE", value, "BASE", base).Replace(copied)
	}
	d.application("masking", "", map[string]string{"production/token.yaml": token, "production/copied.yaml": with("correct-horse", "Y29ycmVjdC1ob3JzZQ==")})
	live := &corev1.ConfigMap{}
	d.get("masking", "copied", live)
	live.Annotations["kubectl.kubernetes.io/last-applied-configuration"] = `{"data":{"plain":"an-older-secret"}}`
	d.must(d.Kube.Update(d.Context(), live))
	d.branch("rotated", "", world.Write("apps/masking/production/token.yaml", strings.Replace(token, "correct-horse", "battery-staple", 1)),
		world.Write("apps/masking/production/copied.yaml", with("battery-staple", "YmF0dGVyeS1zdGFwbGU=")))
	for _, output := range []string{"human", "json"} {
		out := d.slipway(exitNo, "diff", "--ref", "rotated", "-o", output)
		d.says(out, "Secret masking/token", "data.key", "ConfigMap masking/copied", "data.plain", "(masked)", "user:(masked)@host")
		for _, value := range []string{"horse", "staple", "Y29ycmVj", "YmF0dGVy", "an-older-secret"} {
			if strings.Contains(out, value) {
				t.Errorf("-o %s shows %q:\n%s", output, value, out)
			}
		}
	}
}

// What the API server would refuse is shown as that, with the way out, beside what it would take.
func TestDiffOfTheRefused(t *testing.T) {
	d := newDeck(t)
	d.application("refusing", "", map[string]string{"production/web.yaml": workload, "production/settings.yaml": settings})
	d.branch("immutable", "", world.Write("apps/refusing/production/web.yaml", strings.ReplaceAll(workload, "app: web", "app: other")),
		world.Write("apps/refusing/production/settings.yaml", strings.Replace(settings, "info", "debug", 1)),
		world.Write("apps/refusing/production/there.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: not-yet}\n---\n"+
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: in-it, namespace: not-yet}\n"),
		world.Write("apps/refusing/production/unknown.yaml", "apiVersion: nobody.example/v1\nkind: Unknown\nmetadata: {name: it}\n"))
	out := d.slipway(exitFailed, "diff", "--ref", "immutable")
	d.says(out, "! apps/Deployment refusing/web", "field is immutable", "slipway.dev/force", "~ ConfigMap refusing/settings",
		"+ Namespace not-yet", "+ ConfigMap not-yet/in-it (not tried: its namespace comes with it)", "! nobody.example/Unknown", "2 of its objects would be refused")

	d.branch("unreadable", "", world.Write("apps/refusing/production/web.yaml", "kind: ["))
	d.says(d.slipway(exitFailed, "diff", "--ref", "unreadable"), "could not be compared", "web.yaml:1")
}

func TestDiffOfSeveralClusters(t *testing.T) {
	d := newDeck(t)
	d.application("everywhere", "", map[string]string{"production/settings.yaml": settings})
	d.branch("wider", "", world.Write("apps/everywhere/production/settings.yaml", strings.Replace(settings, "info", "debug", 1)))
	contexts, err := wire.KubeContexts(d.Cluster.Kubeconfig())
	d.must(err)
	var diffs []applicationDiff
	d.read(exitNo, &diffs, "diff", "--ref", "wider", "--context", contexts[0], "--context", contexts[0])
	if len(diffs) != 2 || diffs[0].Cluster != contexts[0] || len(diffs[1].Differences) != 1 {
		t.Errorf("of two clusters: %+v", diffs)
	}
	d.says(d.slipway(exitUsage, "diff", "--clusters", "--context", "x"), "--context")
	d.says(d.slipway(exitUsage, "diff", "--kubeconfig", "x", "--context", "y"), "several --kubeconfig")
	d.says(d.slipway(exitFailed, "diff", "--clusters"), "none is in both", "rename-context")
	_, err = d.Commit(d.Context(), "Name the cluster", world.Write("clusters/"+contexts[0]+"/README", "here\n"))
	d.must(err)
	d.says(d.slipway(exitNo, "diff", "--ref", "wider", "--clusters"), "everywhere in "+contexts[0]+": 1 to change")
}
