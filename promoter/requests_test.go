package promoter_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/manifests/v1alpha1"
	"github.com/slipway-cd/slipway/promoter"
)

// hub is a Git host's pull requests, kept as a host keeps them: heads follow the branch until closed or merged.
type hub struct {
	w        *world
	requests []promoter.PullRequest // by number, from 1
	branches []string
	bodies   map[int64]string
	titles   map[int64]string
	comments map[int64][]string
	down     bool
	opened   int // calls
}

func (h *hub) Of(_ context.Context, branch string) iter.Seq2[promoter.PullRequest, error] {
	return func(yield func(promoter.PullRequest, error) bool) {
		if h.down {
			yield(promoter.PullRequest{}, gitsource.ErrUnreachable)
			return
		}
		for i, r := range slices.Backward(h.requests) {
			if h.branches[i] != branch {
				continue
			}
			if !r.Closed && !r.Merged {
				r.Head = h.w.tip(branch)
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (h *hub) newest(ctx context.Context, branch string) (promoter.PullRequest, bool, error) {
	for r, err := range h.Of(ctx, branch) {
		return r, err == nil, err
	}
	return promoter.PullRequest{}, false, nil
}

func (h *hub) Open(ctx context.Context, branch, title, body string) (promoter.PullRequest, error) {
	h.opened++
	newest, found, err := h.newest(ctx, branch)
	if err != nil {
		return promoter.PullRequest{}, err
	}
	if !found || newest.Closed || newest.Merged {
		n := int64(len(h.requests) + 1)
		h.requests = append(h.requests, promoter.PullRequest{Number: n, URL: fmt.Sprintf("https://git.example/env/pulls/%d", n)})
		h.branches = append(h.branches, branch)
		newest, _, _ = h.newest(ctx, branch)
	}
	h.titles[newest.Number], h.bodies[newest.Number] = title, body
	return newest, nil
}

func (h *hub) Comment(_ context.Context, number int64, key, text string) error {
	if h.down {
		return gitsource.ErrUnreachable
	}
	if !slices.ContainsFunc(h.comments[number], func(c string) bool { return strings.HasPrefix(c, key) }) {
		h.comments[number] = append(h.comments[number], key+" "+text)
	}
	return nil
}

// merge is what the host's button does: a merge commit without trailers, or a squash; the branch goes.
func (h *hub) merge(number int64, squash bool) gitsource.ObjectID {
	h.w.Helper()
	r, branch := &h.requests[number-1], h.branches[number-1]
	head, tip := h.w.tip(branch), h.w.tip("main")
	tree := strings.TrimSpace(git(h.w.T, h.w.host, "merge-tree", "--write-tree", string(tip), string(head)))
	args := []string{"-c", "user.name=Cy", "-c", "user.email=cy@example.org", "commit-tree", tree, "-p", string(tip), "-m", fmt.Sprintf("Merge pull request #%d", number)}
	if !squash {
		args = append(args, "-p", string(head))
	}
	stamp := h.w.now.Format(time.RFC3339)
	merge, err := run(ctx, h.w.host, []string{"GIT_AUTHOR_DATE=" + stamp, "GIT_COMMITTER_DATE=" + stamp}, "", args...)
	if err != nil {
		h.w.Fatal(err)
	}
	git(h.w.T, h.w.host, "update-ref", "refs/heads/main", merge)
	git(h.w.T, h.w.host, "update-ref", "-d", "refs/heads/"+branch)
	r.Merged, r.Head, r.Merge = true, head, gitsource.ObjectID(merge)
	return r.Merge
}

// shown is a renderer that shows the file itself.
type shown struct{}

func (shown) Rendered(_ context.Context, folder string, from, to gitsource.Snapshot) (string, error) {
	a, err := from.Tree.ReadFile(folder + "/kustomization.yaml")
	if err != nil {
		return "", err
	}
	b, err := to.Tree.ReadFile(folder + "/kustomization.yaml")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("-%s\n+%s\n", strings.Split(string(a), "digest: ")[1][:12], strings.Split(string(b), "digest: ")[1][:12]), nil
}

// sourceWorld has a source repository of some commits beside the environment repo, and a host with pull requests.
func newHubWorld(t *testing.T) (*world, *hub, []gitsource.ObjectID) {
	t.Helper()
	w := newWorld(t)
	source := &world{T: t, host: newHost(t), now: noon}
	var commits []gitsource.ObjectID
	for n, subject := range []string{"Begin", "Fix the cart", "Ping @everybody, closes #1", "Add `ticks`"} {
		source.now = noon.Add(time.Duration(n) * time.Minute)
		commits = append(commits, source.write(subject, map[string]string{"main.go": subject}))
	}
	h := &hub{w: w, bodies: map[int64]string{}, titles: map[int64]string{}, comments: map[int64][]string{}}
	c := newClone(t, source.host)
	if _, err := c.Fetch(ctx, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	var err error
	w.Promoter, err = promoter.New(promoter.Options{
		Repo: w.repo, Requests: h, Sources: oneSource{c}, Diff: shown{}, RunURL: func(run string) string { return "https://ci.example/runs/" + run },
		Now: func() time.Time { return w.now }, Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	})
	if err != nil {
		t.Fatal(err)
	}
	return w, h, commits
}

type oneSource struct{ history }

func (s oneSource) History(_ context.Context, url string) (promoter.History, error) {
	if url != sourceURL {
		return nil, gitsource.ErrNotFound
	}
	return s.history, nil
}

// from is what run n built of a source commit, for production.
func from(n int, c string, commit gitsource.ObjectID) promoter.Update {
	u := built(n, c)
	u.Environment, u.Image.Revision.ID = "production", commit
	return u
}

// TestPullRequests: a request is described on the host, follows its branch, and ships when it is merged there.
func TestPullRequests(t *testing.T) {
	w, h, source := newHubWorld(t)
	w.at(2)
	first := w.one(from(1, "b", source[0]), promoter.Requested, "")
	if first.URL != "https://git.example/env/pulls/1" || h.titles[1] != "Promote shop to production: shop bbbbbbbbbbbb" {
		t.Errorf("%+v, %q", first, h.titles[1])
	}
	if !strings.Contains(h.bodies[1], "What changed there is not known: `nothing says what the image that stands now was built from`") {
		t.Error(h.bodies[1])
	}
	merge := h.merge(1, false)
	if got := w.one(from(1, "b", source[0]), promoter.Present, ""); got.Commit != merge {
		t.Errorf("%+v", got)
	}
	// The next request tells what is new since then, and is written anew when its branch moves.
	w.at(4).one(from(3, "c", source[1]), promoter.Requested, "")
	w.at(6).one(from(5, "d", source[3]), promoter.Requested, "")
	if len(h.requests) != 2 {
		t.Fatalf("%d requests", len(h.requests))
	}
	for _, want := range []string{
		"3 commits by 1 person, from `" + source[0].Short() + "` to `" + source[3].Short() + "`",
		"- `" + source[3].Short() + "` ``Add `ticks` `` by `Bob`, 2026-03-01\n- `" + source[2].Short() + "` `Ping @\u2060everybody, closes #1` by `Bob`",
		"from `" + digest("b") + "`\n  - to `" + digest("d") + "`",
		"by run [`run-0005`](https://ci.example/runs/run-0005)", "-sha256:bbbbb\n+sha256:ddddd",
	} {
		if !strings.Contains(strings.ReplaceAll(h.bodies[2], "`` Add `ticks` ``", "``Add `ticks` ``"), want) {
			t.Errorf("no %q in\n%s", want, h.bodies[2])
		}
	}
	h.merge(2, false)
	// Back to an older version by hand: the text says what that takes out.
	back := w.must(w.Promote(ctx, toProduction("b")))
	if back.URL != "https://git.example/env/pulls/3" || !strings.Contains(h.bodies[3], "**This takes out** 3 commits") {
		t.Errorf("%+v\n%s", back, h.bodies[3])
	}
	// Squashed, the trailers lost and the branch gone: the files say it.
	h.merge(3, true)
	w.one(from(1, "b", source[0]), promoter.Present, "")
	if again := w.must(w.Promote(ctx, toProduction("b"))); !again.NoChange || len(h.requests) != 3 || w.tip(requestBranch) != "" {
		t.Errorf("asked for what is there: %+v", again)
	}
	w.at(8).one(from(5, "d", source[3]), promoter.Held, "taken out of production by")
}

// TestClosedIsAnAnswer: what a person closed is not asked for again, until there is something else, or a person asks.
func TestClosedIsAnAnswer(t *testing.T) {
	w, h, source := newHubWorld(t)
	w.at(2)
	first := w.one(from(1, "b", source[0]), promoter.Requested, "")
	h.requests[0].Closed, h.requests[0].Head = true, first.Commit
	w.one(from(1, "b", source[0]), promoter.Held, "a person closed https://git.example/env/pulls/1")
	git(t, w.host, "update-ref", "-d", "refs/heads/"+requestBranch) // many close and delete in one go
	w.one(from(1, "b", source[0]), promoter.Held, "a person closed https://git.example/env/pulls/1")
	w.must(w.Promote(ctx, toProduction("b")))
	if len(h.requests) != 2 {
		t.Errorf("%d requests", len(h.requests))
	}
	h.requests[1].Closed, h.requests[1].Head = true, w.tip(requestBranch)
	if next := w.at(4).one(from(3, "c", source[1]), promoter.Requested, ""); next.URL != "https://git.example/env/pulls/3" {
		t.Errorf("%+v", next)
	}
}

// TestDescribe: a branch that somebody else pushed gets a request, and goes when that was merged, also by a squash.
func TestDescribe(t *testing.T) {
	w, h, _ := newHubWorld(t)
	w.writeTo("refs/heads/"+requestBranch, "Try b", map[string]string{productionFile: kustomization("b"), "slipway.yaml": slipwayYAML})
	describe := func(open, want bool) {
		t.Helper()
		if _, found, err := w.Describe(ctx, "production", "shop", open); err != nil || found != want {
			t.Fatalf("found %v, %v", found, err)
		}
	}
	describe(true, false) // it has nothing in common with main: no request could merge it
	git(t, w.host, "update-ref", "-d", "refs/heads/"+requestBranch)
	git(t, w.host, "update-ref", "refs/heads/"+requestBranch, string(w.tip("main")))
	describe(true, false) // it asks for nothing
	w.writeTo("refs/heads/"+requestBranch, "Try b", map[string]string{productionFile: kustomization("b")})
	describe(false, false)
	if h.opened != 0 {
		t.Fatal("a request was opened although nobody wanted one")
	}
	describe(true, true)
	describe(false, true)
	if len(h.requests) != 1 || !strings.Contains(h.bodies[1], digest("b")) {
		t.Fatalf("%d requests: %v", len(h.requests), h.bodies)
	}
	asked := w.tip(requestBranch)
	h.merge(1, true)
	git(t, w.host, "update-ref", "refs/heads/"+requestBranch, string(asked)) // not every host deletes it
	describe(true, false)
	if w.tip(requestBranch) != "" || len(h.requests) != 1 {
		t.Errorf("branch at %q, %d requests", w.tip(requestBranch), len(h.requests))
	}
}

// TestHostDown: a person's branch is pushed, and its request follows when the host answers again.
func TestHostDown(t *testing.T) {
	w, h, source := newHubWorld(t)
	h.down = true
	down := w.at(2).writeBack(from(1, "b", source[0]))[0]
	if down.Outcome != promoter.Unwritten || !down.Again() || w.tip(requestBranch) != "" {
		t.Fatalf("%+v", down)
	}
	if _, err := w.Promote(ctx, toProduction("b")); !errors.Is(err, gitsource.ErrUnreachable) || !strings.Contains(err.Error(), "pushed, but its pull request is not open (promote again)") {
		t.Fatal(err)
	}
	h.down = false
	head := w.tip(requestBranch)
	if again := w.one(from(1, "b", source[0]), promoter.Requested, ""); again.Commit != head || again.URL == "" {
		t.Errorf("%+v", again)
	}
}

// TestAnnounceRevert: an agent's revert and a person's are told at the request that brought the image in, once.
func TestAnnounceRevert(t *testing.T) {
	for name, squash := range map[string]bool{"merged": false, "squashed": true} {
		t.Run(name, func(t *testing.T) {
			w, h, source := newHubWorld(t)
			w.at(2).one(from(1, "b", source[0]), promoter.Requested, "")
			h.merge(1, squash)
			w.at(4).one(from(3, "c", source[2]), promoter.Requested, "")
			promoted := h.merge(2, squash)
			since := w.write("Unrelated", map[string]string{"README.md": "x\n"})
			revert := w.at(6).write("Revert shop in production to 0123: Errors\n\nFive @everybody errors.\n\nSlipway-Reverts: "+string(promoted)+"\nSlipway-Verdict: Fail Errors: 5 of 10\n",
				map[string]string{productionFile: kustomization("b")})
			for range 2 {
				got, err := w.AnnounceReverts(ctx, since)
				if err != nil || len(got) != 1 || got[0].Revert != revert || len(got[0].Requests) != 1 || got[0].Requests[0].Number != 2 {
					t.Fatalf("%+v, %v", got, err)
				}
				if squash {
					continue // the source was in the trailers, which are lost
				}
				want := promoter.SourceStatus{
					URL: sourceURL, Commit: source[2], Context: "slipway/production", Description: "Rolled back in production: Fail Errors: 5 of 10",
					Target: "https://git.example/env/pulls/2",
				}
				if len(got[0].Statuses) != 1 || got[0].Statuses[0] != want {
					t.Errorf("%+v", got[0].Statuses)
				}
			}
			if len(h.comments) != 1 || len(h.comments[2]) != 1 {
				t.Fatalf("%+v", h.comments)
			}
			comment := h.comments[2][0]
			if !strings.Contains(comment, "**Rolled back in production.** `Fail Errors: 5 of 10`") || strings.Contains(outside(comment), "@") || !strings.Contains(comment, digest("c")) {
				t.Error(comment)
			}
			// A promotion forward announces nothing.
			w.at(8).one(from(7, "d", source[3]), promoter.Requested, "")
			for _, commit := range []gitsource.ObjectID{h.merge(3, squash), since} {
				if got, err := w.AnnounceRevert(ctx, commit); err != nil || len(got.Requests)+len(got.Statuses) != 0 {
					t.Errorf("%+v, %v", got, err)
				}
			}
			h.down = true
			if _, err := w.AnnounceRevert(ctx, revert); !errors.Is(err, gitsource.ErrUnreachable) {
				t.Error(err)
			}
		})
	}
}

// TestWaitingRevertIsARequest: where a person has to decide on a revert, the host shows it.
func TestWaitingRevertIsARequest(t *testing.T) {
	f := newFailure(t)
	h := &hub{w: f.world, bodies: map[int64]string{}, titles: map[int64]string{}}
	var err error
	f.Promoter, err = promoter.New(promoter.Options{Repo: f.repo, Requests: h, Now: func() time.Time { return f.now }})
	if err != nil {
		t.Fatal(err)
	}
	r := f.request(func(r *v1alpha1.RevertRequest) { r.Direct = false })
	for range 2 { // agents send it again until they see it
		if done := f.carryOut(r, promoter.Done); done.URL != "https://git.example/env/pulls/1" || done.Branch != "revert/production/shop" {
			t.Errorf("%+v", done)
		}
	}
	if h.opened != 1 || !strings.HasPrefix(h.titles[1], "Revert shop in production to ") || !strings.Contains(h.bodies[1], "failed in cluster eu: 0 of 3") {
		t.Errorf("%d: %q\n%s", h.opened, h.titles[1], h.bodies[1])
	}
}
