package promoter_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/promoter"
	"github.com/slipway-cd/slipway/promoter/edit"
	"github.com/slipway-cd/slipway/promoter/environment"
)

var ctx = context.Background()

const (
	devFile        = "apps/shop/dev/kustomization.yaml"
	productionFile = "apps/shop/production/kustomization.yaml"
)

func toDev(c string) promoter.Request {
	return promoter.Request{App: "shop", Environment: "dev", Images: []edit.Image{{Name: "r.example/shop", Digest: digest(c)}}, Author: ann, Trace: "t" + c}
}

func toProduction(c string) promoter.Request {
	r := toDev(c)
	r.Environment = "production"
	return r
}

func TestPromoteByCommit(t *testing.T) {
	w := newWorld(t)
	result := w.must(w.Promote(ctx, toDev("b")))
	if !result.Direct || result.NoChange || result.Branch != "main" || result.Commit != w.tip("main") {
		t.Errorf("%+v", result)
	}
	if got := w.read("main", devFile); got != kustomization("b") {
		t.Errorf("got:\n%s", got)
	}
	message := w.message("main")
	if !strings.HasPrefix(message, "Promote shop to dev: shop@sha256:bbbbbbbbbbbb\n") {
		t.Errorf("message: %s", message)
	}
	want := trailer.Change{App: "shop", Environment: "dev", Image: "r.example/shop@" + digest("b"), Trace: "tb"}
	if block := trailer.Parse(message); len(block.Changes) != 1 || block.Changes[0] != want {
		t.Errorf("trailers: %+v", block)
	}
	if again := w.must(w.Promote(ctx, toDev("b"))); !again.NoChange || w.commits("main") != 2 {
		t.Errorf("again: %+v, %d commits", again, w.commits("main"))
	}
}

func TestPromoteRefuses(t *testing.T) {
	w := newWorld(t)
	for want, change := range map[string]func(*promoter.Request){
		`environment "live": not in slipway.yaml (it has dev, production)`: func(r *promoter.Request) { r.Environment = "live" },
		`app "../x": want`:                       func(r *promoter.Request) { r.App = "../x" },
		`apps/nope/dev: no kustomization there`:  func(r *promoter.Request) { r.App = "nope" },
		`author "" <>: want a name and an email`: func(r *promoter.Request) { r.Author = gitsource.Person{} },
		`comes after 0 environments`:             func(r *promoter.Request) { r.Images = nil },
		`digest "sha256:1": want`:                func(r *promoter.Request) { r.Images[0].Digest = "sha256:1" },
	} {
		r := toDev("b")
		change(&r)
		if _, err := w.Promote(ctx, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if w.commits("main") != 1 {
		t.Error("something was written")
	}
}

// TestTwoPromotersAtOnce: both land, one after the other, whoever wins.
func TestTwoPromotersAtOnce(t *testing.T) {
	w := newWorld(t)
	w.write("Add an app", map[string]string{"apps/cart/dev/kustomization.yaml": kustomization("a")})
	const each = 4
	var wait sync.WaitGroup
	for _, app := range []string{"shop", "cart"} {
		p := w.promoter(newClone(t, w.host))
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range each {
				r := toDev(string("bcde"[i]))
				r.App = app
				if _, err := p.Promote(ctx, r); err != nil {
					t.Errorf("%s: %v", app, err)
				}
			}
		}()
	}
	wait.Wait()
	if got := w.commits("main"); got != 2+2*each {
		t.Errorf("%d commits", got)
	}
	for _, path := range []string{devFile, "apps/cart/dev/kustomization.yaml"} {
		if w.read("main", path) != kustomization("e") {
			t.Errorf("%s:\n%s", path, w.read("main", path))
		}
	}
}

// TestLostRaceChecksAgain: a Hold that lands first is met on the second attempt.
func TestLostRaceChecksAgain(t *testing.T) {
	w := newWorld(t)
	w.repo.beforePush = func(string) {
		w.repo.beforePush = nil
		rival := w.promoter(newClone(t, w.host))
		w.must(rival.Hold(ctx, promoter.HoldRequest{App: "shop", Environment: "dev", Image: "r.example/shop", Digest: digest("b"), Author: ann, Reason: "bad"}))
	}
	var held *promoter.HeldError
	if _, err := w.Promote(ctx, toDev("b")); !errors.As(err, &held) || held.Hold.Reason != "bad" {
		t.Fatal(err)
	}
	if w.read("main", devFile) != kustomization("a") {
		t.Error("promoted anyway")
	}
}

func TestGivesUpAfterLostRaces(t *testing.T) {
	w := newWorld(t)
	w.repo.beforePush = func(string) { w.write("Rival", map[string]string{"README.md": time.Now().String()}) }
	if _, err := w.Promote(ctx, toDev("b")); !errors.Is(err, gitsource.ErrMoved) || !strings.Contains(err.Error(), "lost the race 8 times") {
		t.Fatal(err)
	}
}

func TestHolds(t *testing.T) {
	w := newWorld(t)
	hold := promoter.HoldRequest{App: "shop", Environment: "dev", Digest: digest("b"), Author: ann, Reason: "eats carts"}
	w.must(w.Hold(ctx, hold))
	if !w.must(w.Hold(ctx, hold)).NoChange {
		t.Error("held twice")
	}
	_, err := w.Promote(ctx, toDev("b"))
	var held *promoter.HeldError
	if !errors.As(err, &held) || !strings.Contains(err.Error(), "by Ann: eats carts") {
		t.Fatal(err)
	}
	// Another digest takes the Hold away in the same commit.
	before := w.commits("main")
	w.must(w.Promote(ctx, toDev("c")))
	if w.commits("main") != before+1 || w.read("main", environment.HoldPath("dev", "shop")) != "" {
		t.Error("the hold is still there")
	}
	w.must(w.Hold(ctx, hold))
	lift := toDev("b")
	lift.Lift = true
	w.must(w.Promote(ctx, lift))
	if w.read("main", devFile) != kustomization("b") || w.read("main", environment.HoldPath("dev", "shop")) != "" {
		t.Error("not lifted")
	}
	w.must(w.Hold(ctx, promoter.HoldRequest{App: "shop", Environment: "dev", Author: ann, Reason: "what stands"}))
	if got := w.read("main", environment.HoldPath("dev", "shop")); !strings.Contains(got, digest("b")) {
		t.Errorf("holds:\n%s", got)
	}
	w.must(w.Unhold(ctx, promoter.HoldRequest{App: "shop", Environment: "dev", Author: ann}))
	if !w.must(w.Unhold(ctx, promoter.HoldRequest{App: "shop", Environment: "dev", Author: ann})).NoChange {
		t.Error("unheld twice")
	}
}

func TestFreeze(t *testing.T) {
	w := newWorld(t)
	w.must(w.Promote(ctx, toDev("b")))
	w.must(w.Freeze(ctx, "dev", noon.Add(time.Hour), ann, "holidays"))
	var frozen *promoter.FrozenError
	if _, err := w.Promote(ctx, toDev("c")); !errors.As(err, &frozen) || !strings.Contains(err.Error(), "until 2026-03-01T13:00:00Z by Ann: holidays") {
		t.Fatal(err)
	}
	// Going back is not stopped.
	w.must(w.Rollback(ctx, promoter.RollbackRequest{App: "shop", Environment: "dev", To: promoter.Previous, Author: ann}))
	w.now = noon.Add(time.Hour)
	w.must(w.Promote(ctx, toDev("c")))
	w.now = noon
	if _, err := w.Promote(ctx, toDev("d")); !errors.As(err, &frozen) {
		t.Fatal(err)
	}
	w.must(w.Unfreeze(ctx, "dev", ann, ""))
	w.must(w.Promote(ctx, toDev("d")))
	if _, err := w.Freeze(ctx, "dev", noon, ann, "x"); err == nil {
		t.Error("froze the past")
	}
}

// TestImageOfAnotherRepository: an image that moves to another repository takes the place of the one before. A new entry
// beside it would change nothing that runs.
func TestImageOfAnotherRepository(t *testing.T) {
	w := newWorld(t)
	moved := toDev("b")
	moved.Images[0].Name = "elsewhere.example/apps/shop"
	w.write("Start", map[string]string{devFile: "resources: [../base]\nimages:\n  - name: shop\n    newName: r.example/shop\n    digest: " + digest("a") + "\n"})
	w.must(w.Promote(ctx, moved))
	if got, want := w.read("main", devFile), "resources: [../base]\nimages:\n  - name: shop\n    newName: elsewhere.example/apps/shop\n    digest: "+digest("b")+"\n"; got != want {
		t.Errorf("got:\n%s", got)
	}
	if again := w.must(w.Promote(ctx, moved)); !again.NoChange {
		t.Errorf("again: %+v", again)
	}
	back := toDev("c")
	w.must(w.Promote(ctx, back))
	if got := w.read("main", devFile); !strings.Contains(got, "newName: r.example/shop\n    digest: "+digest("c")) {
		t.Errorf("back:\n%s", got)
	}
}
