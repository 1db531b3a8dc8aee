package promoter_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/promoter"
	"github.com/slipway-cd/slipway/promoter/environment"
)

const requestBranch = "promote/production/shop"

func TestRequestAndMerge(t *testing.T) {
	w := newWorld(t)
	w.must(w.Promote(ctx, toDev("b")))
	// No images: what dev has.
	result := w.must(w.Promote(ctx, promoter.Request{App: "shop", Environment: "production", Author: ann, Trace: "tb"}))
	if result.Direct || result.Branch != requestBranch || w.read("main", productionFile) != kustomization("a") {
		t.Errorf("%+v", result)
	}
	if again := w.must(w.Promote(ctx, toProduction("b"))); !again.NoChange || again.Commit != result.Commit {
		t.Errorf("again: %+v", again)
	}
	between := w.write("Unrelated", map[string]string{"README.md": "changed\n"})
	merged := w.must(w.Merge(ctx, "production", "shop", ann, "looks good"))
	if parents := git(t, w.host, "log", "-1", "--format=%P", "main"); parents != string(between+" "+result.Commit) || merged.Commit != w.tip("main") {
		t.Errorf("parents %s, %+v", parents, merged)
	}
	if w.read("main", productionFile) != kustomization("b") || w.read("main", "README.md") != "changed\n" {
		t.Error("the merge lost something")
	}
	block := trailer.Parse(w.message("main"))
	if len(block.Changes) != 1 || block.Changes[0].Image != "r.example/shop@"+digest("b") || block.Changes[0].Trace != "tb" {
		t.Errorf("trailers: %+v", block)
	}
	if w.tip(requestBranch) != "" {
		t.Error("the branch is still there")
	}
	if _, err := w.Merge(ctx, "production", "shop", ann, ""); !errors.Is(err, gitsource.ErrNotFound) {
		t.Error(err)
	}
}

// TestRequestGoesForward: a newer promotion moves the open request without force (the host refuses force).
func TestRequestGoesForward(t *testing.T) {
	w := newWorld(t)
	w.must(w.Promote(ctx, toProduction("b")))
	first := w.tip(requestBranch)
	w.must(w.Promote(ctx, toProduction("c")))
	if git(t, w.host, "rev-parse", requestBranch+"^") != string(first) {
		t.Error("not on top")
	}
	// The tip changes the same line: the request would conflict, so it takes the tip in.
	w.write("By hand", map[string]string{productionFile: kustomization("d")})
	if _, err := w.Merge(ctx, "production", "shop", ann, ""); !errors.As(err, new(*promoter.ConflictError)) || !strings.Contains(err.Error(), productionFile) {
		t.Fatal(err)
	}
	w.must(w.Promote(ctx, toProduction("e")))
	w.must(w.Merge(ctx, "production", "shop", ann, ""))
	if w.read("main", productionFile) != kustomization("e") {
		t.Error(w.read("main", productionFile))
	}
	if block := trailer.Parse(w.message("main")); len(block.Changes) != 1 || !strings.HasSuffix(block.Changes[0].Image, digest("e")) {
		t.Errorf("trailers: %+v", block)
	}
}

func TestMergeChecksAgain(t *testing.T) {
	w := newWorld(t)
	w.must(w.Promote(ctx, toProduction("b")))
	w.must(w.Freeze(ctx, "production", noon.Add(time.Hour), ann, "holidays"))
	if _, err := w.Merge(ctx, "production", "shop", ann, ""); !errors.As(err, new(*promoter.FrozenError)) {
		t.Fatal(err)
	}
	w.must(w.Unfreeze(ctx, "production", ann, ""))
	w.must(w.Hold(ctx, promoter.HoldRequest{App: "shop", Environment: "production", Digest: digest("b"), Author: ann, Reason: "bad"}))
	if _, err := w.Merge(ctx, "production", "shop", ann, ""); !errors.As(err, new(*promoter.HeldError)) {
		t.Fatal(err)
	}
	if w.read("main", productionFile) != kustomization("a") || w.tip(requestBranch) == "" {
		t.Error("merged anyway")
	}
	lift := toProduction("b")
	lift.Lift = true
	w.must(w.Promote(ctx, lift))
	w.must(w.Merge(ctx, "production", "shop", ann, ""))
	if w.read("main", productionFile) != kustomization("b") || w.read("main", environment.HoldPath("production", "shop")) != "" {
		t.Error("not lifted")
	}
}

// TestMergeAfterACrash: the merge landed, the branch was left behind.
func TestMergeAfterACrash(t *testing.T) {
	w := newWorld(t)
	request := w.must(w.Promote(ctx, toProduction("b")))
	w.must(w.Merge(ctx, "production", "shop", ann, ""))
	git(t, w.host, "update-ref", "refs/heads/"+requestBranch, string(request.Commit))
	before := w.tip("main")
	if result := w.must(w.Merge(ctx, "production", "shop", ann, "")); !result.NoChange || w.tip("main") != before || w.tip(requestBranch) != "" {
		t.Errorf("%+v", result)
	}
	// A branch left behind does not stand in the way of the next request.
	git(t, w.host, "update-ref", "refs/heads/"+requestBranch, string(request.Commit))
	w.must(w.Promote(ctx, toProduction("c")))
	w.must(w.Merge(ctx, "production", "shop", ann, ""))
	if w.read("main", productionFile) != kustomization("c") {
		t.Error(w.read("main", productionFile))
	}
}

func TestMergeLosesARace(t *testing.T) {
	w := newWorld(t)
	w.must(w.Promote(ctx, toProduction("b")))
	w.repo.beforePush = func(string) {
		w.repo.beforePush = nil
		w.write("Rival", map[string]string{"README.md": "rival\n"})
	}
	w.must(w.Merge(ctx, "production", "shop", ann, ""))
	if w.read("main", productionFile) != kustomization("b") || w.read("main", "README.md") != "rival\n" || w.commits("main") != 4 {
		t.Errorf("%d commits", w.commits("main"))
	}
}

func TestRollback(t *testing.T) {
	w := newWorld(t)
	begin := w.tip("main")
	w.must(w.Promote(ctx, toDev("b")))
	w.write("More", map[string]string{"apps/shop/dev/patch.yaml": "x: 1\n", "README.md": "kept\n"})
	w.must(w.Promote(ctx, toDev("c")))
	// Previous: b, with the patch.
	w.must(w.Rollback(ctx, promoter.RollbackRequest{App: "shop", Environment: "dev", To: promoter.Previous, Author: ann, Reason: "c is slow"}))
	if w.read("main", devFile) != kustomization("b") || w.read("main", "apps/shop/dev/patch.yaml") == "" {
		t.Error(w.read("main", devFile))
	}
	if got := w.read("main", environment.HoldPath("dev", "shop")); !strings.Contains(got, digest("c")) || !strings.Contains(got, "c is slow") {
		t.Errorf("holds:\n%s", got)
	}
	// Previous again is not c, which is held, but b without the patch.
	w.must(w.Rollback(ctx, promoter.RollbackRequest{App: "shop", Environment: "dev", To: promoter.Previous, Author: ann}))
	if w.read("main", devFile) != kustomization("b") || w.read("main", "apps/shop/dev/patch.yaml") != "" {
		t.Error(w.read("main", devFile))
	}
	w.must(w.Rollback(ctx, promoter.RollbackRequest{App: "shop", Environment: "dev", To: string(begin), Author: ann}))
	if w.read("main", devFile) != kustomization("a") || w.read("main", "README.md") != "kept\n" {
		t.Error(w.read("main", devFile))
	}
	if !w.must(w.Rollback(ctx, promoter.RollbackRequest{App: "shop", Environment: "dev", To: string(begin), Author: ann})).NoChange {
		t.Error("rolled back twice")
	}
	bad := git(t, w.host, "rev-parse", "main~3") // c
	if _, err := w.Rollback(ctx, promoter.RollbackRequest{App: "shop", Environment: "dev", To: bad, Author: ann}); !errors.As(err, new(*promoter.HeldError)) {
		t.Error(err)
	}
	for _, to := range []string{"main", strings.Repeat("0", 40)} {
		if _, err := w.Rollback(ctx, promoter.RollbackRequest{App: "shop", Environment: "dev", To: to, Author: ann}); err == nil {
			t.Errorf("rolled back to %s", to)
		}
	}
}
