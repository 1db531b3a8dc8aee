package gitea

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
)

// user, branch and pull are the parts that are read of Gitea's answers.
type user struct{ Login string }

type branch struct {
	Label string // how it was given: differs from Ref where there is no such branch, or never was
	Ref   string
	SHA   string
	Repo  *struct {
		FullName string `json:"full_name"`
	}
}

type pull struct {
	Number      int64
	HTMLURL     string `json:"html_url"`
	State       string
	Merged      bool
	Mergeable   bool
	Title, Body string
	User        user
	MergedBy    *user   `json:"merged_by"`
	MergeCommit *string `json:"merge_commit_sha"`
	Head, Base  branch
	Updated     time.Time `json:"updated_at"`
	Labels      []struct{ Name string }
}

// own reports whether the head is a branch of the repository: neither one of a fork, nor what the host keeps of a branch
// that is gone, nor what anybody who may read has pushed to refs/for/, which never was a branch and has no label.
func (p pull) own() bool {
	return p.Head.Repo != nil && p.Base.Repo != nil && strings.EqualFold(p.Head.Repo.FullName, p.Base.Repo.FullName) &&
		p.Head.Label == p.Head.Ref && !strings.HasPrefix(p.Head.Ref, "refs/")
}

func (p pull) request() forge.PullRequest {
	r := forge.PullRequest{
		Number: p.Number, URL: p.HTMLURL, State: forge.State(p.State), Head: p.Head.Ref, Base: p.Base.Ref,
		HeadCommit: gitsource.ObjectID(p.Head.SHA), Title: p.Title, Body: p.Body, Author: p.User.Login, Mergeable: p.Mergeable, Updated: p.Updated, Own: p.own(),
	}
	for _, label := range p.Labels {
		r.Labels = append(r.Labels, label.Name)
	}
	if p.Merged {
		r.State = forge.Merged
		if p.MergeCommit != nil {
			r.MergeCommit = gitsource.ObjectID(*p.MergeCommit)
		}
		if p.MergedBy != nil {
			r.MergedBy = p.MergedBy.Login
		}
	}
	return r
}

// between reports whether a pull request goes from head to base, both of this repository and not of a fork.
func (p pull) between(c *Client, head, base string) bool {
	return p.Head.Ref == head && p.Base.Ref == base && p.Head.Repo != nil && strings.EqualFold(p.Head.Repo.FullName, c.repo)
}

// OpenRequest returns the open pull request from Head to Base with the title and body asked for: a new one, or the one that
// is there, changed where it differs. The host may make several when it is asked at the same time; then the oldest stays.
func (c *Client) OpenRequest(ctx context.Context, r forge.Request) (forge.PullRequest, error) {
	if r.Head == "" || r.Base == "" || r.Head == r.Base || r.Title == "" || strings.ContainsAny(r.Title, "\r\n") {
		return forge.PullRequest{}, fmt.Errorf("gitea: pull request from %q to %q: want two branches and a title of one line", r.Head, r.Base)
	}
	found, err := c.find(ctx, r.Head, r.Base, forge.Open)
	if errors.Is(err, forge.ErrNotFound) {
		found, err = c.open(ctx, r)
	}
	if err != nil || found.Title == r.Title && same(found.Body, r.Body) {
		return found.request(), err
	}
	return c.change(ctx, found.Number, "word", map[string]string{"title": r.Title, "body": r.Body})
}

// open makes a pull request, unless somebody else does at the same time.
func (c *Client) open(ctx context.Context, r forge.Request) (pull, error) {
	var made pull
	err := c.do(ctx, call{
		op: "open a pull request from " + r.Head, method: http.MethodPost, path: []string{"pulls"}, out: &made,
		in: map[string]string{"head": r.Head, "base": r.Base, "title": r.Title, "body": r.Body},
	})
	if err != nil && !errors.Is(err, forge.ErrBlocked) { // blocked: somebody was faster, or a rule forbids it
		return pull{}, err
	}
	oldest, gone := c.find(ctx, r.Head, r.Base, forge.Open)
	switch {
	case err != nil && errors.Is(gone, forge.ErrNotFound):
		return pull{}, err
	case gone != nil:
		return made, gone
	case made.Number != 0 && oldest.Number < made.Number:
		_, err = c.Close(ctx, made.Number)
		return oldest, err
	}
	return oldest, nil
}

// same compares texts as people see them: a person's browser may have saved other line ends.
func same(a, b string) bool {
	clean := func(s string) string { return strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n")) }
	return clean(a) == clean(b)
}

// Requests yields all pull requests that there ever were from head to base, the newest first. An error ends it.
func (c *Client) Requests(ctx context.Context, head, base string) iter.Seq2[forge.PullRequest, error] {
	return func(yield func(forge.PullRequest, error) bool) {
		// Whether there ever was one is one call; where they are among those of other branches may take many.
		err := c.do(ctx, call{op: "find a pull request from " + head, path: append([]string{"pulls", base}, strings.Split(head, "/")...), out: &pull{}})
		if errors.Is(err, forge.ErrNotFound) {
			return
		}
		on := true
		if err == nil {
			query := url.Values{"state": {"all"}, "base_branch": {base}}
			err = list(ctx, c, call{op: "list the pull requests from " + head, path: []string{"pulls"}, query: query}, func(p pull) bool {
				on = !p.between(c, head, base) || yield(p.request(), nil)
				return on
			})
		}
		if err != nil && on {
			yield(forge.PullRequest{}, err)
		}
	}
}

// Find returns the open pull request from head to base, the oldest if there are several, else the newest of those that were ended; forge.ErrNotFound if there
// never was one.
func (c *Client) Find(ctx context.Context, head, base string) (forge.PullRequest, error) {
	found, err := c.find(ctx, head, base, forge.Open)
	if !errors.Is(err, forge.ErrNotFound) {
		return found.request(), err
	}
	// Whether there ever was one is one call; which is the newest may take many.
	err = c.do(ctx, call{op: "find a pull request from " + head, path: append([]string{"pulls", base}, strings.Split(head, "/")...), out: &pull{}})
	if err == nil {
		found, err = c.find(ctx, head, base, forge.Closed)
	}
	return found.request(), err
}

// find returns the oldest of the open pull requests, or the newest of those that were ended, merged ones among them.
func (c *Client) find(ctx context.Context, head, base string, state forge.State) (found pull, err error) {
	op := "find the " + string(state) + " pull request from " + head
	query := url.Values{"state": {string(state)}, "base_branch": {base}} // the newest first
	err = list(ctx, c, call{op: op, path: []string{"pulls"}, query: query}, func(p pull) bool {
		if p.between(c, head, base) {
			found = p
		}
		return found.Number == 0 || state == forge.Open
	})
	if err == nil && found.Number == 0 {
		err = &forge.Error{Host: c.base.Host, Repo: c.repo, Op: op, Code: http.StatusNotFound, Err: forge.ErrNotFound}
	}
	return found, err
}

// Pull returns a pull request by its number.
func (c *Client) Pull(ctx context.Context, number int64) (forge.PullRequest, error) {
	var p pull
	err := c.do(ctx, call{op: "read pull request " + name(number), path: []string{"pulls", name(number)}, out: &p})
	return p.request(), err
}

func name(number int64) string { return strconv.FormatInt(number, 10) }

// Close ends a pull request without a merge. One that is closed stays so; a merged one is forge.ErrBlocked.
func (c *Client) Close(ctx context.Context, number int64) (forge.PullRequest, error) {
	p, err := c.Pull(ctx, number)
	switch {
	case err != nil || p.State == forge.Closed:
		return p, err
	case p.State == forge.Merged:
		return p, &forge.Error{Host: c.base.Host, Repo: c.repo, Op: "close pull request " + name(number), Code: http.StatusConflict, Reason: "it is merged", Err: forge.ErrBlocked}
	}
	return c.change(ctx, number, "close", map[string]string{"state": "closed"})
}

func (c *Client) change(ctx context.Context, number int64, what string, to map[string]string) (forge.PullRequest, error) {
	var p pull
	err := c.do(ctx, call{op: what + " pull request " + name(number), method: http.MethodPatch, path: []string{"pulls", name(number)}, in: to, out: &p})
	return p.request(), err
}

// Merge merges a pull request if its branch is still at head, by the rules of the host: forge.ErrBlocked while one of them
// is not met, while there is a conflict, after the branch has moved, and for the moment in which the host looks for
// conflicts. One that was merged at head before is returned as it is.
func (c *Client) Merge(ctx context.Context, number int64, head gitsource.ObjectID, method forge.MergeMethod) (forge.PullRequest, error) {
	op := "merge pull request " + name(number)
	do, known := map[forge.MergeMethod]string{forge.MergeCommit: "merge", forge.MergeSquash: "squash", forge.MergeRebase: "rebase"}[method]
	if !known || head == "" {
		return forge.PullRequest{}, fmt.Errorf("gitea: %s: unknown method %q or no commit", op, method)
	}
	failed := c.do(ctx, call{
		op: op, method: http.MethodPost, path: []string{"pulls", name(number), "merge"}, in: map[string]string{"do": do, "head_commit_id": string(head)},
	})
	p, err := c.Pull(ctx, number)
	switch {
	case err == nil && p.State == forge.Merged && p.HeadCommit == head:
		return p, nil // by this call, or by one before whose answer was lost
	case failed != nil:
		return p, failed
	case err == nil:
		err = &forge.Error{Host: c.base.Host, Repo: c.repo, Op: op, Code: http.StatusConflict, Reason: "the host took it and shows it unmerged", Err: forge.ErrBlocked}
	}
	return p, err
}
