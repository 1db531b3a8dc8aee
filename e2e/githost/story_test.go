package githost

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-cd/slipway/e2e/gitea"
	"github.com/slipway-cd/slipway/e2e/world"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/trailer"
	"github.com/slipway-cd/slipway/promoter"
)

// exitNo is the exit code of the command line where the answer is no.
const exitNo = 3

// pull is what the host says of a pull request.
type pull struct {
	Number         int64
	State          string
	Merged         bool
	Title, Body    string
	User           struct{ Login string }
	Head           struct{ SHA string }
	MergeCommitSHA string `json:"merge_commit_sha"`
}

func TestFromPushToRevertWithReviews(t *testing.T) {
	q := newQuay(t)
	for _, app := range []string{"shop-dev", "shop-production"} {
		q.must(q.WaitReady(t.Context(), atMost, "", app))
	}
	good := q.pushedToDev()
	q.promotedByReview(good)
	badSource, bad := q.badToDev()
	merged := q.requestedByBranch(bad)
	q.takenBack(badSource, merged, good, bad)
}

// pushedToDev: a signed webhook starts the run, the worker builds, the server writes to the branch that people may not push to.
func (q *quay) pushedToDev() (image string) {
	files, err := q.ShopSource(q.Context())
	q.must(err)
	source, err := q.source.Commit(q.Context(), "Begin the shop", files...)
	q.must(err)
	image = q.toDev(source)
	q.status(q.shop, source, "slipway/shop", "success")
	if _, err := q.Commit(q.Context(), "Write without review", world.Write("README.md", "# Mine\n")); err == nil {
		q.Error("robin pushed to the protected branch")
	}
	return image
}

// promotedByReview: a request in the name of who asks, which the host merges when a second person has agreed.
func (q *quay) promotedByReview(image string) {
	out, code := q.run(q.robin, "promote", "shop", "--env", "production")
	if code != 0 || !strings.Contains(out, "pull request: "+q.host.URL) {
		q.Fatalf("exit code %d", code)
	}
	p := q.request("open")
	if p.User.Login != q.robin.Name {
		q.Errorf("the request is by %s", p.User.Login)
	}
	q.described(p, image)
	if _, code := q.run(q.robin, "promote", "shop", "--env", "production", "--merge"); code != exitNo {
		q.Errorf("merged without a review: exit code %d", code)
	}
	var refused *gitea.Refused
	if err := q.host.Review(q.Context(), q.robin, q.fleetRepo, p.Number, "APPROVED", "Fine, I wrote it"); !errors.As(err, &refused) || refused.Code != http.StatusUnprocessableEntity {
		q.Errorf("robin's word on the own request: %v", err)
	}
	q.must(q.host.Review(q.Context(), q.kim, q.fleetRepo, p.Number, "APPROVED", "Looks right"))
	if _, code := q.run(q.robin, "promote", "shop", "--env", "production", "--merge"); code != 0 {
		q.Fatalf("not merged after the review: exit code %d", code)
	}
	if p := q.request("closed"); !p.Merged {
		q.Errorf("request %d is not merged", p.Number)
	}
	tip, err := q.Tip(q.Context())
	q.must(err)
	q.arrives("shop-production", tip, image)
}

// badToDev pushes a version that runs in dev and crashes in production.
func (q *quay) badToDev() (source gitsource.ObjectID, image string) {
	played, err := q.ShopPlayed(q.Context(), "shop-production")
	q.must(err)
	source, err = q.source.Commit(q.Context(), "Show prices in the currency of the site", world.ShopVersion("2"), world.ShopOfItsSite(), played)
	q.must(err)
	return source, q.toDev(source)
}

// requestedByBranch: whoever pushes the branch alone gets a request that says as much. It is merged on the host, squashed, so that
// nothing of what the server wrote into commits is left.
func (q *quay) requestedByBranch(image string) (commit gitsource.ObjectID) {
	tip, err := q.Tip(q.Context())
	q.must(err)
	name, digest, _ := strings.Cut(image, "@")
	kustomization := "namespace: shop-production\nresources:\n  - ../base\nimages:\n  - name: shop\n    newName: " + name + "\n    digest: " + digest + "\n"
	asked, err := q.Repo.WriteTree(tip, []gitsource.Change{world.Write("apps/shop/production/kustomization.yaml", kustomization)})
	q.must(err)
	head, err := q.Repo.Commit(gitsource.NewCommit{
		Parents: []gitsource.ObjectID{tip}, Tree: asked, Message: "Try the new shop in production\n", Author: world.Person(), Committer: world.Person(),
	})
	q.must(err)
	ref := "refs/heads/" + promoter.RequestBranch("production", "shop")
	q.must(q.Repo.Push(q.Context(), ref, "", head))
	var p pull
	q.eventually(func() error {
		p = q.request("open")
		if p.Number == 0 {
			return errors.New("nobody has opened a request for the branch")
		}
		return nil
	})
	if p.User.Login != q.slipway.Name || p.Head.SHA != string(head) {
		q.Errorf("the request is by %s, for %s", p.User.Login, p.Head.SHA)
	}
	q.described(p, image)
	if !strings.Contains(p.Body, "Show prices in the currency of the site") {
		q.Errorf("the body does not name the commit between the versions:\n%s", p.Body)
	}
	q.must(q.host.Review(q.Context(), q.robin, q.fleetRepo, p.Number, "APPROVED", "Let us see"))
	q.eventually(func() error { // the host looks for conflicts first
		return q.host.Call(q.Context(), q.kim, http.MethodPost, fmt.Sprintf("repos/%s/pulls/%d/merge", q.fleetRepo.Name, p.Number),
			map[string]any{"Do": "squash", "MergeTitleField": "Ship it", "MergeMessageField": "No trailer is left of it."}, nil)
	})
	merged := q.request("closed")
	if !merged.Merged || merged.MergeCommitSHA == "" {
		q.Fatalf("request %d is not merged", p.Number)
	}
	return gitsource.ObjectID(merged.MergeCommitSHA)
}

// takenBack: the server reverts on the agent's word, and says so at the request and at the source commit.
func (q *quay) takenBack(source, merged gitsource.ObjectID, good, bad string) {
	var back gitsource.Commit
	q.eventually(func() error {
		commits, err := q.World.Log(q.Context(), 10)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(commits, func(c gitsource.Commit) bool { return slices.Contains(trailer.Parse(c.Message).Reverts, merged) })
		if at < 0 {
			return fmt.Errorf("%s is not reverted yet", merged.Short())
		}
		back = commits[at]
		return nil
	})
	q.Logf("revert:\n%s", back.Message)
	q.arrives("shop-production", back.ID, good)

	number := q.request("closed").Number
	var comments []struct {
		Body string
		User struct{ Login string }
	}
	q.eventually(func() error {
		err := q.host.Call(q.Context(), q.robin, http.MethodGet, fmt.Sprintf("repos/%s/issues/%d/comments", q.fleetRepo.Name, number), nil, &comments)
		if err == nil && len(comments) == 0 {
			err = errors.New("the revert is not announced at the request")
		}
		return err
	})
	_, digest, _ := strings.Cut(bad, "@")
	if c := comments[0]; len(comments) != 1 || c.User.Login != q.slipway.Name || !strings.Contains(c.Body, "Rolled back in production") ||
		!strings.Contains(c.Body, string(back.ID)) || !strings.Contains(c.Body, digest) {
		q.Errorf("the announcement: %+v", comments)
	}
	q.status(q.shop, source, "slipway/shop", "success")
	q.status(q.shop, source, "slipway/production", "failure")

	// One chain, asked for from either end.
	first, code := q.run(q.robin, "trace", string(source))
	second, again := q.run(q.robin, "trace", string(back.ID))
	if code != 0 || again != 0 || first != second || !strings.Contains(first, back.ID.Short()) {
		q.Errorf("trace by the source commit (exit code %d):\n%s\nby the revert (%d):\n%s", code, first, again, second)
	}
	q.eventually(func() error {
		branches, err := q.Branches(q.Context())
		if err == nil && !slices.Equal(branches, []string{world.Branch}) {
			err = fmt.Errorf("branches %v are left of requests that were merged", branches)
		}
		return err
	})
}

// request returns the newest request of shop in production that is in a state.
func (q *quay) request(state string) pull {
	q.Helper()
	var all []pull
	q.must(q.host.Call(q.Context(), q.robin, http.MethodGet, "repos/"+q.fleetRepo.Name+"/pulls?sort=recentupdate&state="+state, nil, &all))
	if len(all) == 0 {
		return pull{}
	}
	return slices.MaxFunc(all, func(a, b pull) int { return int(a.Number - b.Number) })
}

// described holds what the body of a request tells: what changes, what it renders to, and how to come back.
func (q *quay) described(p pull, image string) {
	q.Helper()
	_, digest, _ := strings.Cut(image, "@")
	q.Logf("request %d: %s\n%s", p.Number, p.Title, p.Body)
	for _, want := range []string{digest, q.ShopImage(), q.shop.URL, "```diff", "+        image: " + image, "slipway rollback shop --env production"} {
		if !strings.Contains(p.Body, want) {
			q.Errorf("the body does not say %q", want)
		}
	}
}

// status waits for a check of a commit.
func (q *quay) status(r gitea.Repository, commit gitsource.ObjectID, context, want string) {
	q.Helper()
	q.eventually(func() error {
		var all []struct {
			ID                           int64
			Context, Status, Description string
		}
		if err := q.host.Call(q.Context(), q.robin, http.MethodGet, fmt.Sprintf("repos/%s/commits/%s/statuses?limit=50", r.Name, commit), nil, &all); err != nil {
			return err
		}
		state := "none"
		var newest int64
		for _, s := range all {
			if s.Context == context && s.ID > newest {
				state, newest = s.Status, s.ID
			}
		}
		if state != want {
			return fmt.Errorf("status %s of %s is %s, want %s", context, commit.Short(), state, want)
		}
		return nil
	})
}
