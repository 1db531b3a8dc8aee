package promoter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter/edit"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func minute(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }

func digestOf(n int) string { return fmt.Sprintf("sha256:%064x", n) }

// run is what run n builds of source commit n, begun at minute n.
func run(n int) Update {
	return Update{
		App: "shop", Environment: "dev", Run: fmt.Sprintf("run-%03d", n), BuiltAt: minute(n),
		Image: builder.Image{Repository: "r.example/shop", Digest: digestOf(n), Revision: gitsource.Revision{URL: "https://git.example/shop", ID: gitsource.ObjectID(fmt.Sprintf("%040x", n))}},
	}
}

// put is a commit at a minute that replaced one digest by another, by a run or, with 0, by a person.
func put(at, before, after, by int) step {
	s := step{Commit: gitsource.Commit{ID: named("%d", at), Message: "x\n", Author: gitsource.Person{Name: "Ann"}, Committer: gitsource.Person{When: minute(at)}}}
	if before > 0 {
		s.Before = edit.Image{Name: "shop", Digest: digestOf(before)}
	}
	s.After = edit.Image{Name: "shop", Digest: digestOf(after)}
	if by > 0 {
		s.Build = originOf(run(by))
	}
	return s
}

func TestJudgePast(t *testing.T) {
	for name, c := range map[string]struct {
		update Update
		steps  []step // newest first
		since  time.Time
		want   WriteOutcome
		reason string
	}{
		"nothing is known, nothing is cut off":   {run(1), nil, time.Time{}, Unwritten, ""},
		"nothing is known, and the run is newer": {run(5), nil, minute(4), Unwritten, ""},
		"the run is older than all that is read": {run(3), nil, minute(4), Late, "before all history"},
		"first entry, chosen after the run":      {run(3), []step{put(9, 0, 1, 0)}, time.Time{}, Unwritten, ""},
		"newer than what stands":                 {run(5), []step{put(4, 1, 3, 3)}, time.Time{}, Unwritten, ""},
		"older than what stands":                 {run(2), []step{put(4, 1, 3, 3)}, time.Time{}, Late, "run run-003 began after run run-002"},
		"older than what was taken back":         {run(2), []step{put(5, 3, 1, 0), put(4, 1, 3, 3), put(1, 0, 1, 1)}, time.Time{}, Late, "run-003 began after"},
		"what was taken back":                    {run(3), []step{put(5, 3, 1, 0), put(4, 1, 3, 3), put(1, 0, 1, 1)}, time.Time{}, Held, "taken out of dev by"},
		"begun before it was taken back, newer":  {run(4), []step{put(5, 3, 1, 0), put(4, 1, 3, 3), put(1, 0, 1, 1)}, time.Time{}, Unwritten, ""},
		"taken out long ago":                     {run(3), []step{put(9, 7, 8, 8), put(8, 1, 7, 7), put(5, 3, 1, 0), put(4, 1, 3, 3)}, time.Time{}, Held, "taken out"},
		"a person's choice after the run":        {run(4), []step{put(5, 3, 99, 0), put(4, 1, 3, 3)}, time.Time{}, Late, "was chosen by"},
		"a person's choice before the run":       {run(6), []step{put(5, 3, 99, 0), put(4, 1, 3, 3)}, time.Time{}, Unwritten, ""},
		"replaced by a newer build":              {run(3), []step{put(5, 3, 4, 4), put(4, 1, 3, 3)}, time.Time{}, Late, "took its place"},
		"a step back that has trailers":          {run(3), []step{put(5, 3, 2, 2), put(4, 2, 3, 3), put(2, 1, 2, 2)}, time.Time{}, Held, "taken out"},
		"taken out and put in again":             {run(3), []step{put(9, 3, 7, 7), put(6, 1, 3, 0), put(5, 3, 1, 0)}, time.Time{}, Late, "took its place"},
	} {
		t.Run(name, func(t *testing.T) {
			asking := &comparison{}
			h := history{steps: c.steps, since: c.since, older: func(u Update, than origin) (string, bool) {
				return asking.older(context.Background(), u, than, time.Time{})
			}}
			got := judgePast(c.update, h)
			if got.outcome != c.want || !strings.Contains(got.reason, c.reason) {
				t.Errorf("%s: %q, want %s: %q", got.outcome, got.reason, c.want, c.reason)
			}
		})
	}
}

func TestBuiltBefore(t *testing.T) {
	mine, other := run(3).Image.Revision.ID, run(5).Image.Revision.ID
	for name, c := range map[string]struct {
		run    string
		than   origin
		base   gitsource.ObjectID
		stands time.Time
		older  bool
	}{
		"its source contains mine":              {"run-003", originOf(run(5)), mine, time.Time{}, true},
		"mine contains its source":              {"run-003", originOf(run(5)), other, time.Time{}, false},
		"mine contains it, although run before": {"run-001", originOf(run(5)), other, time.Time{}, false},
		"side by side: the runs tell":           {"run-009", originOf(run(5)), "77", time.Time{}, false},
		"side by side: older run":               {"run-004", originOf(run(5)), "77", time.Time{}, true},
		"the same run":                          {"run-005", originOf(run(5)), "", time.Time{}, false},
		"no run: the time tells":                {"", originOf(run(5)), "", minute(4), true},
		"no run, it stood before":               {"", originOf(run(5)), "", minute(2), false},
	} {
		u := run(3)
		u.Run = c.run
		if _, older := builtBefore(u, c.than, c.base, c.stands); older != c.older {
			t.Errorf("%s: %v", name, older)
		}
	}
}

// FuzzWriteBack: however the same builds are cut into batches, shuffled, doubled and
// interrupted by lost races, by commit and by request, the image that stands in the end is the same, a person's
// revert stays, and delivering all of it again writes nothing.
func FuzzWriteBack(f *testing.F) {
	for seed := range uint64(30) {
		f.Add(seed, uint8(7), uint8(seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, builds, revertAfter uint8) {
		first := play(t, rand.New(rand.NewPCG(seed, 1)), int(builds%9)+1, int(revertAfter))
		second := play(t, rand.New(rand.NewPCG(seed, 2)), int(builds%9)+1, int(revertAfter))
		if first != second {
			t.Fatalf("one order gives\n%s\nanother\n%s", first, second)
		}
	})
}

// play delivers builds of two apps and returns what stands in the end.
func play(t *testing.T, random *rand.Rand, builds, revertAfter int) string {
	t.Helper()
	repo := newMemory()
	now := minute(100)
	p, err := New(Options{Repo: repo, Now: func() time.Time { return now }, Wait: func(context.Context, time.Duration) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	const delivery = "apiVersion: slipway.dev/v1alpha1\nkind: Delivery\nenvironments:\n- {name: dev, path: \"{app}\", promote: {by: commit}}\n- {name: live, path: \"live/{app}\"}\n"
	files := map[string]string{"slipway.yaml": delivery, "live/shop/kustomization.yaml": "resources: []\n", "shop/kustomization.yaml": "resources: []\n", "cart/kustomization.yaml": "images:\n- name: r.example/shop\n  digest: " + digestOf(99) + "\n"}
	repo.byHand(t, files, minute(0))
	var deliveries []Update
	for n := 1; n <= builds; n++ {
		for _, app := range []string{"shop", "cart"} {
			u := run(n)
			u.App = app
			deliveries = append(deliveries, u)
		}
		live := run(n)
		live.Environment = "live"
		deliveries = append(deliveries, live)
	}
	newest := run(builds)
	newest.App = "shop"
	if revertAfter%3 == 0 { // the newest is there, and a person takes it out before any other comes
		deliver(t, p, newest)
		repo.byHand(t, map[string]string{"shop/kustomization.yaml": files["shop/kustomization.yaml"]}, minute(101))
	}
	twice := slices.Concat(deliveries, deliveries)
	random.Shuffle(len(twice), func(i, j int) { twice[i], twice[j] = twice[j], twice[i] })
	for len(twice) > 0 {
		size := 1 + random.IntN(len(twice))
		repo.lose = random.IntN(3)
		deliver(t, p, twice[:size]...)
		twice = twice[size:]
	}
	repo.lose = 0
	const request = "refs/heads/promote/live/shop"
	tip, head := repo.refs["refs/heads/main"], repo.refs[request]
	for _, w := range deliver(t, p, deliveries...) {
		if w.Outcome == Committed {
			t.Fatalf("written again: %+v", w)
		}
	}
	if repo.refs["refs/heads/main"] != tip || repo.refs[request] != head {
		t.Fatal("a commit that changes nothing")
	}
	if _, err := p.Merge(context.Background(), "live", "shop", gitsource.Person{Name: "Ann", Email: "ann@example.org"}, ""); err != nil {
		t.Fatal(err)
	}
	tip = repo.refs["refs/heads/main"]
	deliver(t, p, deliveries...)
	if repo.refs["refs/heads/main"] != tip || repo.refs[request] != "" {
		t.Fatal("asked again for what is merged")
	}
	at, err := p.stateAt(context.Background(), tip)
	if err != nil {
		t.Fatal(err)
	}
	shop, _, _ := at.file("shop/kustomization.yaml")
	cart, _, _ := at.file("cart/kustomization.yaml")
	live, _, _ := at.file("live/shop/kustomization.yaml")
	if want := digestOf(builds); !strings.Contains(string(live), want) || !strings.Contains(string(cart), want) || strings.Contains(string(shop), want) != (revertAfter%3 != 0) {
		t.Fatalf("shop:\n%s\ncart:\n%s\nlive:\n%s", shop, cart, live)
	}
	return string(shop) + string(cart) + string(live)
}

func deliver(t *testing.T, p *Promoter, updates ...Update) []Written {
	t.Helper()
	written, err := p.WriteBack(context.Background(), updates)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range written {
		if w.Outcome == Unwritten {
			t.Fatalf("%+v", w)
		}
	}
	return written
}

// byHand is a person's commit on main.
func (m *memory) byHand(t *testing.T, files map[string]string, at time.Time) {
	t.Helper()
	var changes []gitsource.Change
	for name, content := range files {
		changes = append(changes, gitsource.Change{Path: name, Content: []byte(content)})
	}
	old := m.refs["refs/heads/main"]
	tree, _ := m.WriteTree(old, changes)
	commit := gitsource.NewCommit{Tree: tree, Message: "By hand\n", Committer: gitsource.Person{When: at}}
	if old != "" {
		commit.Parents = []gitsource.ObjectID{old}
	}
	id, _ := m.Commit(commit)
	if err := m.Push(context.Background(), "refs/heads/main", old, id); err != nil {
		t.Fatal(err)
	}
}
