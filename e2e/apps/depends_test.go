package apps

import (
	"fmt"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/manifests/v1alpha1"
)

func depends(names ...string) string {
	spec := "  dependsOn:\n"
	for _, name := range names {
		spec += "    - name: " + name + "\n"
	}
	return spec
}

// A new version waits for the dependency, at the same revision where both follow one source, and no longer than that.
func TestDependsOn(t *testing.T) {
	db := tell(t, "db", "")
	web := story{t, "web"}
	db.commit("Start the shop", db.set("one"), db.job("load", "a: b", ""), web.set("one"), application("web", depends("db")),
		application("loner", depends("nobody")), story{t, "loner"}.set("one"))
	web.says(v1alpha1.ReasonDependencyNotReady, "application db is not ready: waiting: batch/Job db/load: has not ended")
	story{t, "loner"}.says(v1alpha1.ReasonDependencyNotReady, "application nobody does not exist")
	db.end("load", 0)
	db.ready()
	// The namespace of web is nobody's: it is created below, so that the wait above cannot be for that.
	web.says(v1alpha1.ReasonApplyFailed, `namespaces "web" not found`)
	db.commit("Make room", db.file("web.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n"), web.set("two"))
	web.has("two")
	web.ready()

	db.commit("Both", db.set("two"), db.job("load-again", "a: b", ""), web.set("three"))
	web.says(v1alpha1.ReasonDependencyNotReady, "application db")
	db.has("two")
	if got := web.setting(); got != "two" {
		t.Errorf("web is at %q before db is ready", got)
	}
	db.end("load-again", 0)
	web.has("three")
	web.ready()

	// db has nothing to do, and web is not kept waiting by that.
	start := time.Now()
	web.commit("Web alone", web.set("four"))
	web.has("four")
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
	web.ready()

	// What is applied is healed while a dependency is suspended; what is new waits.
	db.commit("Suspend db", application("db", "  suspend: true\n"))
	db.says(v1alpha1.ReasonSuspended)
	web.spoil()
	web.has("four")
	web.commit("Web again", web.set("five"))
	web.says(v1alpha1.ReasonDependencyNotReady, "application db is suspended")
	db.commit("Resume db", application("db", ""))
	web.has("five")
	web.ready()
}

// An expression takes the place of being Ready; one that does not compile is named.
func TestReadyExpression(t *testing.T) {
	s := tell(t, "expr", "  dependsOn: [{name: expr-dep, readyExpr: 'dep.status.'}]\n",
		application("expr-dep", ""), story{t, "expr-dep"}.file("ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: expr-dep}\n"))
	dep := story{t, "expr-dep"}
	s.commit("A setting", s.set("one"))
	s.says(v1alpha1.ReasonInvalidExpression, "spec.dependsOn[0].readyExpr", "dep.status.", "Syntax error")
	if !s.stalled() {
		t.Error("not stalled")
	}
	s.commit("Count objects", application("expr", "  dependsOn: [{name: expr-dep, readyExpr: 'dep.status.objects >= 2 && self.metadata.name == \"expr\"'}]\n"))
	s.says(v1alpha1.ReasonDependencyNotReady, "application expr-dep: readyExpr", "does not hold")
	dep.commit("More objects", dep.set("one"))
	s.has("one")
	s.ready()
}

// All members of a circle say so, and go on as soon as it is cut.
func TestDependencyCycle(t *testing.T) {
	names := []string{"ring-a", "ring-b", "ring-c"}
	s := tell(t, names[0], depends(names[1]), application(names[1], depends(names[2])), application(names[2], depends(names[0])),
		story{t, names[0]}.set("one"), story{t, names[1]}.set("one"), story{t, names[2]}.set("one"))
	s.commit("Namespaces", s.file("namespaces.yaml", fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", names[1], names[2])))
	for i, name := range names {
		member := story{t, name}
		member.says(v1alpha1.ReasonDependencyCycle, name+" -> "+names[(i+1)%3]+" -> "+names[(i+2)%3]+" -> "+name)
		if !member.stalled() {
			t.Errorf("%s is not stalled", name)
		}
	}
	s.commit("Cut the ring", application(names[0], ""))
	for _, name := range names {
		story{t, name}.has("one")
		story{t, name}.ready()
	}
}
