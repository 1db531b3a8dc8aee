package gitea

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
)

// errPart says that a list was not the whole one.
var errPart = errors.New("the list changed while it was read")

// AllOpen returns all open pull requests to base: all of them, or an error. A host gives them in pages, and one that is opened
// or closed between two of them moves others across; so what takes several pages is read until it comes twice the same.
func (c *Client) AllOpen(ctx context.Context, base string) ([]forge.PullRequest, error) {
	const tries = 5
	var before []forge.PullRequest
	for range tries {
		all, pages, err := c.readOpen(ctx, base)
		switch {
		case err != nil && !errors.Is(err, errPart):
			return nil, err
		case err == nil && (pages == 1 || before != nil && slices.EqualFunc(before, all, sameNumber)):
			return all, nil
		}
		before = all
	}
	return nil, &forge.Error{Host: c.base.Host, Repo: c.repo, Op: "list the open pull requests to " + base, Err: errPart}
}

func sameNumber(a, b forge.PullRequest) bool { return a.Number == b.Number }

// readOpen returns what the pages have, and how many there were.
func (c *Client) readOpen(ctx context.Context, base string) (all []forge.PullRequest, pages int, err error) {
	op := "list the open pull requests to " + base
	failed := func(err error, format string, args ...any) ([]forge.PullRequest, int, error) {
		return nil, 0, &forge.Error{Host: c.base.Host, Repo: c.repo, Op: op, Reason: fmt.Sprintf(format, args...), Err: err}
	}
	seen := map[int64]bool{}
	total := ""
	for page := 1; page <= maxPages; page++ {
		var items []pull
		var header http.Header
		// The oldest first, so that what is new comes last. Older hosts do not know base_branch and give all.
		query := url.Values{"state": {"open"}, "base_branch": {base}, "sort": {"oldest"}, "page": {strconv.Itoa(page)}, "limit": {strconv.Itoa(pageSize)}}
		if err := c.do(ctx, call{op: op, path: []string{"pulls"}, query: query, out: &items, header: &header}); err != nil {
			return nil, 0, err
		}
		now := header.Get("X-Total-Count")
		if page > 1 && now != total {
			return failed(errPart, "there were %s, then %s", total, now)
		}
		total = now
		for _, p := range items {
			if seen[p.Number] {
				return failed(errPart, "pull request %d came twice", p.Number)
			}
			seen[p.Number] = true
			if p.Base.Ref != base || p.State != string(forge.Open) {
				continue
			}
			if _, err := gitsource.ParseObjectID(p.Head.SHA); err != nil && p.own() {
				return failed(err, "the host does not say where pull request %d stands", p.Number)
			}
			all = append(all, p.request())
		}
		switch count := strconv.Itoa(len(seen)); {
		case count == total, total == "" && len(items) == 0:
			return all, page, nil
		case len(items) == 0:
			return failed(errPart, "%s of %s came", count, total)
		}
	}
	return failed(nil, "more than %d pages", maxPages)
}
