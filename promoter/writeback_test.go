package promoter_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/promoter"
	"github.com/slipway-cd/slipway/promoter/environment"
)

const sourceURL = "https://git.example/shop"

// commitID is a source commit that only its number tells from others.
func commitID(n int) gitsource.ObjectID { return gitsource.ObjectID(fmt.Sprintf("%040x", n)) }

// built is what run number n made of source commit number n, begun n minutes after noon.
func built(n int, c string) promoter.Update {
	return promoter.Update{
		App: "shop", Environment: "dev", Run: fmt.Sprintf("run-%04d", n), Trace: fmt.Sprintf("%032x", n),
		Image:   builder.Image{Repository: "r.example/shop", Digest: digest(c), Revision: gitsource.Revision{URL: sourceURL, Ref: "refs/heads/main", ID: commitID(n)}},
		BuiltAt: noon.Add(time.Duration(n) * time.Minute),
	}
}

// writeBack returns the answers; it fails the test if nothing was decided.
func (w *world) writeBack(updates ...promoter.Update) []promoter.Written {
	w.Helper()
	written, err := w.WriteBack(ctx, updates)
	if err != nil {
		w.Fatal(err)
	}
	if len(written) != len(updates) {
		w.Fatalf("%d answers to %d updates", len(written), len(updates))
	}
	return written
}

// one writes back one update and wants an outcome and part of the reason.
func (w *world) one(u promoter.Update, want promoter.WriteOutcome, reason string) promoter.Written {
	w.Helper()
	got := w.writeBack(u)[0]
	if got.Outcome != want || !strings.Contains(got.Reason, reason) {
		w.Fatalf("%s: %q, %v; want %s: %q", got.Outcome, got.Reason, got.Err, want, reason)
	}
	return got
}

// at moves the clock to n minutes after noon.
func (w *world) at(n int) *world {
	w.now = noon.Add(time.Duration(n) * time.Minute)
	return w
}

func TestWriteBack(t *testing.T) {
	w := newWorld(t).at(2)
	got := w.one(built(1, "b"), promoter.Committed, "")
	if got.Commit != w.tip("main") || got.Branch != "main" || w.read("main", devFile) != kustomization("b") {
		t.Errorf("%+v\n%s", got, w.read("main", devFile))
	}
	message := w.message("main")
	want := trailer.Change{
		App: "shop", Environment: "dev", Image: "r.example/shop@" + digest("b"), Source: sourceURL + "@" + string(commitID(1)),
		Run: "run-0001", Trace: fmt.Sprintf("%032x", 1),
	}
	if block := trailer.Parse(message); len(block.Changes) != 1 || block.Changes[0] != want {
		t.Errorf("%s", message)
	}
	if who := git(t, w.host, "log", "-1", "--format=%an <%ae> %cI", "main"); who != "slipway-server <server@slipway.dev> 2026-03-01T12:02:00+00:00" {
		t.Error(who)
	}
	// Delivered again, after an unrelated commit too, it writes nothing and names the same commit.
	w.write("Unrelated", map[string]string{"README.md": "changed\n"})
	if again := w.one(built(1, "b"), promoter.Present, ""); again.Commit != got.Commit || w.commits("main") != 3 {
		t.Errorf("%+v, %d commits", again, w.commits("main"))
	}
}

// TestBatchIsOneCommit: what queues up goes together, and what is wrong with one app stays with it.
func TestBatchIsOneCommit(t *testing.T) {
	w := newWorld(t)
	w.write("More apps", map[string]string{
		"apps/cart/dev/kustomization.yaml":   kustomization("a"),
		"apps/broken/dev/kustomization.yaml": "images: [",
		"apps/held/dev/kustomization.yaml":   kustomization("a"),
		environment.HoldPath("held", "x"):    "",
		environment.HoldPath("dev", "held"): string(environment.Holds{}.With(environment.Hold{
			Image: "r.example/shop", Digest: digest("c"), Reason: "eats carts", Since: noon, By: "Ann",
		}).Bytes()),
	})
	w.at(9)
	var updates []promoter.Update
	for _, app := range []string{"shop", "broken", "cart", "nowhere", "held", "Bad Name", "shop"} {
		u := built(3, "c")
		u.App = app
		updates = append(updates, u)
	}
	updates[6] = built(2, "b") // older than the first
	production := built(3, "c")
	production.Environment = "production"
	nameless := built(3, "c")
	nameless.Image.Repository = "Not a name!"
	updates = append(updates, nameless, production, promoter.Update{App: "shop", Environment: "live", Image: production.Image, BuiltAt: noon})
	before := w.commits("main")
	got := w.writeBack(updates...)
	for i, want := range []struct {
		outcome promoter.WriteOutcome
		text    string
	}{
		{promoter.Committed, ""},
		{promoter.Unwritten, "apps/broken/dev/kustomization.yaml: not YAML"},
		{promoter.Committed, ""},
		{promoter.Unwritten, "apps/nowhere/dev: no kustomization there"},
		{promoter.Held, "eats carts"},
		{promoter.Unwritten, `app "Bad Name": want`},
		{promoter.Late, "run run-0003 brings r.example/shop@sha256:cccc"},
		{promoter.Unwritten, `image "Not a name!": not the name`},
		{promoter.Requested, ""},
		{promoter.Unwritten, `environment "live": not in slipway.yaml`},
	} {
		g := got[i]
		text := g.Reason
		if g.Err != nil {
			text = g.Err.Error()
		}
		if g.Outcome != want.outcome || !strings.Contains(text, want.text) || (g.Err != nil) != (want.outcome == promoter.Unwritten) || g.Again() {
			t.Errorf("%d: %s %q, want %s %q", i, g.Outcome, text, want.outcome, want.text)
		}
	}
	if w.commits("main") != before+1 || got[0].Commit != got[2].Commit || got[8].Branch != requestBranch || got[8].Commit != w.tip(requestBranch) {
		t.Errorf("%d commits, %+v", w.commits("main")-before, got)
	}
	if message := w.message("main"); !strings.HasPrefix(message, "Promote 2 images of 2 apps to dev\n\n- cart to dev: shop@sha256:cccccccccccc\n- shop") || len(trailer.Parse(message).Changes) != 2 {
		t.Error(message)
	}
	if w.read(requestBranch, productionFile) != kustomization("c") || w.read("main", productionFile) != kustomization("a") {
		t.Error("not a request")
	}
}

// TestNeverBack: what is older than what stands is dropped, whatever the order of delivery.
func TestNeverBack(t *testing.T) {
	w := newWorld(t).at(1)
	w.one(built(1, "b"), promoter.Committed, "")
	w.at(4).one(built(3, "d"), promoter.Committed, "")
	w.at(5).one(built(2, "c"), promoter.Late, "shop@sha256:dddddddddddd, put in by ")
	w.one(built(1, "b"), promoter.Late, "shop@sha256:dddddddddddd took its place by") // delivered again
	w.one(built(3, "d"), promoter.Present, "")
	// A rebuild of an old commit that gives the same digest as a newer one's.
	again := built(6, "b")
	w.at(7).one(again, promoter.Committed, "")
	w.one(built(3, "d"), promoter.Late, "took its place")
	if w.commits("main") != 4 {
		t.Errorf("%d commits", w.commits("main"))
	}
}

// TestPersonsRevertHolds: a digest that somebody took out stays out, and nothing else does.
func TestPersonsRevertHolds(t *testing.T) {
	w := newWorld(t).at(1)
	w.one(built(1, "b"), promoter.Committed, "")
	w.at(3).one(built(3, "d"), promoter.Committed, "")
	w.at(5).write("Revert \"Promote shop\"", map[string]string{devFile: kustomization("b")})
	w.at(6).one(built(3, "d"), promoter.Held, `of Bob ("Revert \"Promote shop\"", 2026-03-01T12:05:00Z)`)
	retried := built(6, "d") // a new run of it gives the same digest
	w.at(7).one(retried, promoter.Held, "promote it by hand")
	w.one(built(2, "c"), promoter.Late, "run run-0003 began after run run-0002")
	// A fix that was on its way when the revert came is not what was reverted.
	w.one(built(4, "e"), promoter.Committed, "")
	w.one(built(3, "d"), promoter.Held, "taken out")
	// Promoting by hand brings it back, and then it is what stands.
	w.must(w.Promote(ctx, toDev("d")))
	w.one(built(3, "d"), promoter.Present, "")
	w.at(9).one(built(8, "f"), promoter.Committed, "")
}

// TestChosenByHand: a build that began before somebody chose an image does not overwrite it.
func TestChosenByHand(t *testing.T) {
	w := newWorld(t).at(1)
	w.one(built(1, "b"), promoter.Committed, "")
	w.at(5).write("Try a hotfix", map[string]string{devFile: kustomization("9")})
	w.at(6).one(built(4, "d"), promoter.Late, `was chosen by `)
	w.at(7).one(built(6, "e"), promoter.Committed, "")
	// A step back by hand, with what the history knows of the older build in the trailers, is a step back all the same.
	w.at(8).must(w.Promote(ctx, toDev("b")))
	if block := trailer.Parse(w.message("main")); block.Changes[0].Run != "run-0001" || block.Changes[0].Source == "" {
		t.Errorf("%+v", block)
	}
	w.at(9).one(built(6, "e"), promoter.Held, "taken out")
}

func TestHoldsAndFreezesStopWriteBack(t *testing.T) {
	w := newWorld(t).at(1)
	w.must(w.Hold(ctx, promoter.HoldRequest{App: "shop", Environment: "dev", Digest: digest("c"), Author: ann, Reason: "eats carts"}))
	w.at(3).one(built(3, "c"), promoter.Held, "by Ann: eats carts")
	// An older one that nobody holds goes in, also when both come together.
	got := w.writeBack(built(3, "c"), built(2, "b"))
	if got[0].Outcome != promoter.Held || got[1].Outcome != promoter.Committed {
		t.Fatalf("%+v", got)
	}
	w.must(w.Freeze(ctx, "dev", noon.Add(time.Hour), ann, "holidays"))
	frozen := w.at(5).one(built(5, "e"), promoter.Frozen, "until 2026-03-01T13:00:00Z by Ann: holidays")
	if !frozen.Until.Equal(noon.Add(time.Hour)) || !frozen.Again() {
		t.Errorf("%+v", frozen)
	}
	w.one(built(2, "b"), promoter.Present, "")
	w.at(60).one(built(5, "e"), promoter.Committed, "")
}

// TestRevertsHold: an automatic revert's own Hold, and after it was replaced the revert itself, keep the digest out.
func TestRevertsHold(t *testing.T) {
	f := newFailure(t)
	f.carryOut(f.request(nil), promoter.Done)
	u := built(1, "b")
	u.Environment = "production"
	f.one(u, promoter.Held, "failed in cluster eu")
	next := built(9, "c")
	next.Environment = "production"
	f.at(10).one(next, promoter.Requested, "")
	f.must(f.Merge(ctx, "production", "shop", ann, ""))
	if f.read("main", environment.HoldPath("production", "shop")) != "" {
		t.Fatal("the hold is still there")
	}
	f.one(u, promoter.Held, "taken out of production by")
}

// TestRequestsNeverGoBack: an open request moves forward only, and what a person changes on it stays.
func TestRequestsNeverGoBack(t *testing.T) {
	w := newWorld(t).at(1)
	production := func(n int, c string) promoter.Update {
		u := built(n, c)
		u.Environment = "production"
		return u
	}
	first := w.one(production(2, "b"), promoter.Requested, "")
	if again := w.one(production(2, "b"), promoter.Requested, ""); again.Commit != first.Commit {
		t.Errorf("%+v", again)
	}
	w.one(production(1, "9"), promoter.Late, "run run-0002 began after")
	second := w.at(4).one(production(3, "c"), promoter.Requested, "")
	if git(t, w.host, "rev-parse", requestBranch+"^") != string(first.Commit) || second.Commit != w.tip(requestBranch) {
		t.Errorf("%+v", second)
	}
	w.at(5).writeTo("refs/heads/"+requestBranch, "Not that one", map[string]string{productionFile: kustomization("b")})
	w.at(6).one(production(3, "c"), promoter.Held, "taken out of production by")
	w.must(w.Merge(ctx, "production", "shop", ann, ""))
	if merged := w.one(production(2, "b"), promoter.Present, ""); merged.Commit != w.tip("main") {
		t.Errorf("%+v", merged)
	}
	// Merged by squashing, the branch left behind: the tip says it, and the branch does not stand in the way.
	w.at(8).one(production(7, "d"), promoter.Requested, "")
	w.write("Squashed", map[string]string{productionFile: kustomization("d")})
	w.one(production(7, "d"), promoter.Present, "")
	w.at(9).one(production(8, "e"), promoter.Requested, "")
	w.must(w.Merge(ctx, "production", "shop", ann, ""))
	if w.read("main", productionFile) != kustomization("e") {
		t.Error(w.read("main", productionFile))
	}
}

type history = promoter.History

// ancestry is a source repository of which only merge bases are asked.
type ancestry struct {
	history
	base  func(a, b gitsource.ObjectID) (gitsource.ObjectID, error)
	asked int
}

func (a *ancestry) History(_ context.Context, url string) (promoter.History, error) {
	if url != sourceURL {
		return nil, gitsource.ErrNotFound
	}
	return a, nil
}

func (a *ancestry) MergeBase(_ context.Context, x, y gitsource.ObjectID) (gitsource.ObjectID, error) {
	a.asked++
	return a.base(x, y)
}

// TestAncestryDecides: a new run of an old commit is late, although its id is greater.
func TestAncestryDecides(t *testing.T) {
	w := newWorld(t)
	linear := func(a, b gitsource.ObjectID) (gitsource.ObjectID, error) { return min(a, b), nil }
	source := &ancestry{base: linear}
	var err error
	w.Promoter, err = promoter.New(promoter.Options{Repo: w.repo, Sources: source, Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	w.at(5).one(built(5, "b"), promoter.Committed, "")
	retried := built(3, "c")
	retried.Run, retried.BuiltAt = "run-0009", noon.Add(9*time.Minute)
	w.at(9).one(retried, promoter.Late, "already contains 000000000000")
	// Rewritten histories and hosts that are down leave it to the runs.
	for _, base := range []func(a, b gitsource.ObjectID) (gitsource.ObjectID, error){
		func(a, b gitsource.ObjectID) (gitsource.ObjectID, error) { return "", gitsource.ErrUnreachable },
		func(a, b gitsource.ObjectID) (gitsource.ObjectID, error) { return commitID(1), nil },
	} {
		source.base = base
		w.one(built(4, "d"), promoter.Late, "run run-0005 began after run run-0004")
	}
	w.one(retried, promoter.Committed, "")
	if source.asked != 4 {
		t.Errorf("asked %d times", source.asked)
	}
}

// TestWriteBackLosesARace: what lands first is seen on the second attempt.
func TestWriteBackLosesARace(t *testing.T) {
	w := newWorld(t).at(3)
	w.repo.beforePush = func(string) {
		w.repo.beforePush = nil
		rival := w.promoter(newClone(t, w.host))
		if _, err := rival.WriteBack(ctx, []promoter.Update{built(3, "c")}); err != nil {
			t.Error(err)
		}
	}
	w.one(built(2, "b"), promoter.Late, "is newer")
	w.repo.beforePush = func(string) {
		w.repo.beforePush = nil
		w.write("Revert it", map[string]string{devFile: kustomization("a")})
	}
	w.at(5).one(built(3, "c"), promoter.Present, "")
	w.one(built(4, "d"), promoter.Committed, "") // newer than what was reverted
	w.repo.lostAnswer = true
	lost := w.at(7).writeBack(built(6, "e"))[0]
	if lost.Outcome != promoter.Unwritten || !lost.Again() || !errors.Is(lost.Err, gitsource.ErrUnreachable) {
		t.Fatalf("%+v", lost)
	}
	tip := w.tip("main")
	if again := w.one(built(6, "e"), promoter.Present, ""); again.Commit != tip || w.tip("main") != tip {
		t.Errorf("%+v", again)
	}
}

// TestTwoWritersRace: two servers with the same deliveries in different orders end in the newest image, written once.
func TestTwoWritersRace(t *testing.T) {
	w := newWorld(t).at(9)
	const builds = 6
	var wait sync.WaitGroup
	for _, order := range [][]int{{1, 2, 3, 4, 5, 6}, {6, 3, 1, 5, 4, 2}} {
		p := w.promoter(newClone(t, w.host))
		wait.Go(func() {
			for _, n := range order {
				written, err := p.WriteBack(ctx, []promoter.Update{built(n, string("0bcdef1"[n]))})
				if err != nil || written[0].Err != nil {
					t.Errorf("%d: %+v, %v", n, written, err)
				}
			}
		})
	}
	wait.Wait()
	if got := w.read("main", devFile); got != kustomization("1") {
		t.Errorf("got:\n%s", got)
	}
	if got := w.commits("main"); got > 1+builds {
		t.Errorf("%d commits", got)
	}
	seen := map[string]bool{}
	for _, line := range strings.Split(git(t, w.host, "log", "--format=%(trailers:key=Slipway-Change,valueonly)", "main"), "\n") {
		if line != "" && seen[line] {
			t.Errorf("written twice: %s", line)
		}
		seen[line] = true
	}
}

func TestWriteBackWithoutARepo(t *testing.T) {
	w := newWorld(t)
	if got, err := w.WriteBack(ctx, nil); got != nil || err != nil {
		t.Error(got, err)
	}
	w.repo.remote += "-is-gone"
	if got, err := w.WriteBack(ctx, []promoter.Update{built(1, "b")}); got != nil || !errors.Is(err, gitsource.ErrUnreachable) {
		t.Errorf("%+v, %v", got, err)
	}
}
