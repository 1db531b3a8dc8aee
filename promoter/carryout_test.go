package promoter_test

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter"
	"github.com/slipway-cd/slipway/promoter/environment"
	"github.com/slipway-cd/slipway/promoter/undo"
)

// failure is a world in which production failed with b and was healthy with a.
type failure struct {
	*world
	agent           *clone
	key             ed25519.PrivateKey
	healthy, failed gitsource.ObjectID
}

func newFailure(t *testing.T) *failure {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &failure{world: newWorld(t), key: private}
	f.agent = newClone(t, f.host)
	f.healthy = f.write("Install", map[string]string{environment.AgentKeyPath("eu"): string(undo.FormatPublicKey(public))})
	f.failed = f.write("Promote", map[string]string{productionFile: kustomization("b")})
	f.write("Unrelated", map[string]string{"README.md": "kept\n"})
	return f
}

// request is what the agent composes at the tip, signed.
func (f *failure) request(change func(*v1alpha1.RevertRequest)) v1alpha1.RevertRequest {
	f.Helper()
	tip, err := f.agent.Fetch(ctx, "refs/heads/main")
	if err != nil {
		f.Fatal(err)
	}
	r := v1alpha1.RevertRequest{
		URL: f.host, Branch: "main", Cluster: "eu", App: "shop", Environment: "production", Path: "apps/shop/production",
		Tip: string(tip.ID), Failed: string(f.failed), Healthy: string(f.healthy), Direct: true,
		Holds: []v1alpha1.HeldImage{{Name: "r.example/shop", Digest: digest("b")}}, At: metav1.NewTime(f.now),
	}
	var trees undo.Trees
	for to, id := range map[*gitsource.Tree]gitsource.ObjectID{&trees.Failed: f.failed, &trees.Healthy: f.healthy, &trees.Tip: tip.ID} {
		snapshot, err := f.agent.SnapshotOf(ctx, id)
		if err != nil {
			f.Fatal(err)
		}
		*to = snapshot.Tree
	}
	revert, err := undo.ComposeRevert(trees, promoter.FactsOf(r), undo.Evidence{Verdict: v1alpha1.Verdict{Outcome: "Fail", Reason: "Deadline", Message: "0 of 3"}})
	if err != nil {
		f.Fatal(err)
	}
	tree, err := f.agent.WriteTree(tip.ID, revert.Changes)
	if err != nil {
		f.Fatal(err)
	}
	r.Tree, r.Message = string(tree), revert.Message
	if change != nil {
		change(&r)
	}
	if err := undo.Sign(f.key, &r); err != nil {
		f.Fatal(err)
	}
	return r
}

func (f *failure) carryOut(r v1alpha1.RevertRequest, want promoter.Outcome) promoter.CarriedOut {
	f.Helper()
	got, err := f.CarryOut(ctx, r)
	if err != nil {
		f.Fatal(err)
	}
	if got.Outcome != want {
		f.Fatalf("%s: %s, want %s", got.Outcome, got.Reason, want)
	}
	return got
}

func TestCarryOut(t *testing.T) {
	f := newFailure(t)
	r := f.request(nil)
	done := f.carryOut(r, promoter.Done)
	if !done.Pushed || done.Commit != f.tip("main") || f.commits("main") != 5 {
		t.Errorf("%+v, %d commits", done, f.commits("main"))
	}
	if f.read("main", productionFile) != kustomization("a") || f.read("main", "README.md") != "kept\n" {
		t.Error(f.read("main", productionFile))
	}
	if !strings.Contains(f.read("main", environment.HoldPath("production", "shop")), digest("b")) {
		t.Error("no hold")
	}
	if who := git(t, f.host, "log", "-1", "--format=%an <%ae> %aI %cI", "main"); who != "slipway-agent eu <eu@agents.slipway.dev> 2026-03-01T12:00:00+00:00 2026-03-01T12:00:00+00:00" {
		t.Error(who)
	}
	// Sent again, now and after more commits, it pushes nothing.
	if again := f.carryOut(r, promoter.Done); again.Pushed || again.Commit != done.Commit {
		t.Errorf("%+v", again)
	}
	f.write("Fixed", map[string]string{productionFile: kustomization("c")})
	if again := f.carryOut(r, promoter.Done); again.Pushed || again.Commit != done.Commit || f.commits("main") != 6 {
		t.Errorf("%+v", again)
	}
}

// TestTwoClustersMakeOneRevert: the second one finds the tip as it wants it.
func TestTwoClustersMakeOneRevert(t *testing.T) {
	f := newFailure(t)
	f.write("Install", map[string]string{environment.AgentKeyPath("us"): f.read("main", environment.AgentKeyPath("eu"))})
	us := f.request(func(r *v1alpha1.RevertRequest) { r.Cluster = "us" })
	f.carryOut(f.request(nil), promoter.Done)
	if done := f.carryOut(us, promoter.Done); done.Pushed {
		t.Errorf("%+v", done)
	}
}

func TestCarryOutSuperseded(t *testing.T) {
	f := newFailure(t)
	r := f.request(nil)
	f.write("Rival", map[string]string{"README.md": "rival\n"})
	f.carryOut(r, promoter.Superseded)
	r = f.request(nil)
	f.repo.beforePush = func(string) {
		f.repo.beforePush = nil
		f.write("Rival", map[string]string{"README.md": "rival again\n"})
	}
	f.carryOut(r, promoter.Superseded)
	f.carryOut(f.request(nil), promoter.Done)
	if f.read("main", "README.md") != "rival again\n" || f.repo.pushed != 1 {
		t.Errorf("%d pushes", f.repo.pushed)
	}
}

func TestCarryOutRefuses(t *testing.T) {
	f := newFailure(t)
	f.write("Keys", map[string]string{environment.AgentKeyPath("bad"): "not a key\n"})
	evil := f.writeTo("refs/heads/evil", "Evil", map[string]string{
		"slipway.yaml": slipwayYAML, productionFile: kustomization("e"),
	})
	if _, err := f.repo.Fetch(ctx, "refs/heads/evil"); err != nil {
		t.Fatal(err)
	}
	_, stranger, _ := ed25519.GenerateKey(nil)
	for name, c := range map[string]struct {
		signed func(*v1alpha1.RevertRequest)
		after  func(*v1alpha1.RevertRequest)
		want   string
	}{
		"forged":       {after: func(r *v1alpha1.RevertRequest) { r.Healthy = r.Failed }, want: "does not fit the agent's key"},
		"unsigned":     {after: func(r *v1alpha1.RevertRequest) { r.Signature = "" }, want: "does not fit the agent's key"},
		"wrong key":    {after: func(r *v1alpha1.RevertRequest) { _ = undo.Sign(stranger, r) }, want: "does not fit the agent's key"},
		"no key":       {signed: func(r *v1alpha1.RevertRequest) { r.Cluster = "us" }, want: ".slipway/agents/us.pub: not there"},
		"broken key":   {signed: func(r *v1alpha1.RevertRequest) { r.Cluster = "bad" }, want: ".slipway/agents/bad.pub: public key: want"},
		"climbing":     {signed: func(r *v1alpha1.RevertRequest) { r.Cluster = "../x" }, want: `cluster "../x"`},
		"expired":      {signed: func(r *v1alpha1.RevertRequest) { r.At = metav1.NewTime(noon.Add(-25 * time.Hour)) }, want: "older than 24h0m0s"},
		"future":       {signed: func(r *v1alpha1.RevertRequest) { r.At = metav1.NewTime(noon.Add(time.Hour)) }, want: "from the future"},
		"other branch": {signed: func(r *v1alpha1.RevertRequest) { r.Branch = "next" }, want: "revert request for next"},
		"other tree":   {signed: func(r *v1alpha1.RevertRequest) { r.Tree = strings.Repeat("1", 40) }, want: "the merge gives tree"},
		"other path":   {signed: func(r *v1alpha1.RevertRequest) { r.Path = "apps/shop/dev" }, want: "the merge gives tree"},
		"keys as path": {after: func(r *v1alpha1.RevertRequest) { r.Path = ".slipway/agents" }, want: "an Application's own folder"},
		"no id":        {signed: func(r *v1alpha1.RevertRequest) { r.Failed = "main" }, want: "object id"},
		"not merged":   {signed: func(r *v1alpha1.RevertRequest) { r.Healthy = string(evil) }, want: "not in the history of main"},
	} {
		t.Run(name, func(t *testing.T) {
			r := f.request(c.signed)
			if c.after != nil {
				c.after(&r)
			}
			if got := f.carryOut(r, promoter.Refused); !strings.Contains(got.Reason, c.want) {
				t.Errorf("got %q, want %q", got.Reason, c.want)
			}
		})
	}
	if f.repo.pushed != 0 {
		t.Error("something was pushed")
	}
}

// TestCarryOutForAPerson: the revert waits on a branch, and a person merges it, freeze or not.
func TestCarryOutForAPerson(t *testing.T) {
	f := newFailure(t)
	waits := func(r *v1alpha1.RevertRequest) { r.Direct, r.Why = false, "cluster us is healthy with it" }
	r := f.request(waits)
	before := f.tip("main")
	done := f.carryOut(r, promoter.Done)
	if done.Branch != "revert/production/shop" || !done.Pushed || f.tip("main") != before {
		t.Errorf("%+v", done)
	}
	if again := f.carryOut(r, promoter.Done); again.Pushed || again.Commit != done.Commit {
		t.Errorf("%+v", again)
	}
	// The tip moves on: the agent's next request moves the branch forward (the host refuses force).
	f.write("Unrelated", map[string]string{"README.md": "more\n"})
	f.carryOut(f.request(waits), promoter.Done)
	f.must(f.Freeze(ctx, "production", noon.Add(time.Hour), ann, "holidays"))
	f.must(f.MergeRevert(ctx, "production", "shop", ann, ""))
	if f.read("main", productionFile) != kustomization("a") || f.read("main", "README.md") != "more\n" || f.tip(done.Branch) != "" {
		t.Error(f.read("main", productionFile))
	}
}

// TestCarryOutToAProtectedBranch: where the host does not let the server push, a person merges, and hears why.
func TestCarryOutToAProtectedBranch(t *testing.T) {
	f := newFailure(t)
	protect(t, f.host)
	r := f.request(nil)
	before := f.tip("main")
	done := f.carryOut(r, promoter.Done)
	if done.Branch != "revert/production/shop" || !done.Pushed || f.tip("main") != before || !strings.Contains(done.Reason, "does not let the server push to main") {
		t.Errorf("%+v", done)
	}
	if again := f.carryOut(r, promoter.Done); again.Pushed || again.Commit != done.Commit || again.Branch != done.Branch {
		t.Errorf("sent again: %+v", again)
	}
	if f.tip(done.Branch) != done.Commit || f.read(done.Branch, productionFile) != kustomization("a") {
		t.Errorf("the branch says %s", f.read(done.Branch, productionFile))
	}
}

// TestWiderThanTheApplication: what may change others is put before a person.
func TestWiderThanTheApplication(t *testing.T) {
	f := newFailure(t)
	for _, path := range []string{"apps/shop", "apps", "."} {
		got := f.carryOut(f.request(func(r *v1alpha1.RevertRequest) { r.Path = path }), promoter.Refused)
		if path != "." && !strings.Contains(got.Reason, "wider than apps/shop/production") {
			t.Errorf("%s: %s", path, got.Reason)
		}
	}
	before := f.tip("main")
	for _, path := range []string{"apps/shop", "apps"} {
		got := f.carryOut(f.request(func(r *v1alpha1.RevertRequest) { r.Path, r.Direct, r.Why = path, false, "a shared base" }), promoter.Done)
		if got.Branch != promoter.RevertBranch("production", "shop") {
			t.Errorf("%s: %+v", path, got)
		}
	}
	if f.tip("main") != before {
		t.Error("the followed branch moved")
	}
}
