package gitea

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
)

type comment struct {
	ID   int64
	Body string
	User user
}

// Comment says text on a pull request, once for each key: said again with another text, the comment is changed. The key is
// in the comment where people do not see it. Comments of others are never changed, whatever is in them.
func (c *Client) Comment(ctx context.Context, number int64, key, text string) error {
	if !plain(key) || strings.Contains(key, "--") {
		return fmt.Errorf("gitea: comment on pull request %d: key %q: want letters, digits, '.', '_' and single '-'", number, key)
	}
	mark := "<!-- slipway:" + key + " -->"
	body := strings.TrimSpace(text) + "\n\n" + mark
	op := "comment on pull request " + name(number)
	var all []comment // this list has no pages
	if err := c.do(ctx, call{op: op, path: []string{"issues", name(number), "comments"}, out: &all}); err != nil {
		return err
	}
	for _, said := range all {
		if !strings.EqualFold(said.User.Login, c.user) || !strings.HasSuffix(strings.TrimSpace(said.Body), mark) {
			continue
		}
		if same(said.Body, body) {
			return nil
		}
		return c.do(ctx, call{op: op, method: http.MethodPatch, path: []string{"issues", "comments", name(said.ID)}, in: map[string]string{"body": body}})
	}
	return c.do(ctx, call{op: op, method: http.MethodPost, path: []string{"issues", name(number), "comments"}, in: map[string]string{"body": body}})
}

// verdicts are Gitea's words for submitted reviews. Pending ones and mere requests for one are not among them.
var verdicts = map[string]forge.Verdict{"APPROVED": forge.Approved, "REQUEST_CHANGES": forge.ChangesRequested, "COMMENT": forge.Commented}

// Reviews returns what was said about a pull request, oldest first.
func (c *Client) Reviews(ctx context.Context, number int64) ([]forge.Review, error) {
	type review struct {
		ID                         int64
		User                       *user // none for a team
		State                      string
		Body                       string
		Commit                     string `json:"commit_id"`
		Stale, Dismissed, Official bool
		Submitted                  time.Time `json:"submitted_at"`
	}
	var all []forge.Review
	err := list(ctx, c, call{op: "read the reviews of pull request " + name(number), path: []string{"pulls", name(number), "reviews"}}, func(r review) bool {
		if verdict, submitted := verdicts[r.State]; submitted && r.User != nil {
			all = append(all, forge.Review{
				ID: r.ID, Author: r.User.Login, Verdict: verdict, Commit: gitsource.ObjectID(r.Commit),
				Stands: !r.Stale && !r.Dismissed, Official: r.Official, Body: r.Body, Submitted: r.Submitted,
			})
		}
		return true
	})
	return all, err
}

// maxDescription is what fits beside a status; the details are behind its URL.
const maxDescription = 140

// Status says how a check of a commit stands. Saying what stands already adds nothing.
func (c *Client) Status(ctx context.Context, commit gitsource.ObjectID, s forge.Status) error {
	if s.Context == "" || s.URL != "" && !strings.HasPrefix(s.URL, "http://") && !strings.HasPrefix(s.URL, "https://") {
		return fmt.Errorf("gitea: status of %s: want a context, and an http URL or none", commit.Short())
	}
	if runes := []rune(s.Description); len(runes) > maxDescription {
		s.Description = string(runes[:maxDescription-3]) + "..."
	}
	switch s.State {
	case forge.Pending, forge.Success, forge.Failure, forge.Errored:
	default:
		return fmt.Errorf("gitea: status %s of %s: unknown state %q", s.Context, commit.Short(), s.State)
	}
	now, err := c.Statuses(ctx, commit)
	if err != nil {
		return err
	}
	for _, n := range now {
		if n == s {
			return nil
		}
	}
	return c.do(ctx, call{
		op: "set status " + s.Context + " of " + commit.Short(), method: http.MethodPost, path: []string{"statuses", string(commit)},
		in: map[string]string{"state": string(s.State), "context": s.Context, "description": s.Description, "target_url": s.URL},
	})
}

// Statuses returns the checks of a commit, the latest of each context, by context.
func (c *Client) Statuses(ctx context.Context, commit gitsource.ObjectID) ([]forge.Status, error) {
	type status struct {
		ID                           int64
		Status, Context, Description string
		URL                          string `json:"target_url"`
	}
	if _, err := gitsource.ParseObjectID(string(commit)); err != nil {
		return nil, fmt.Errorf("gitea: statuses: %w", err)
	}
	latest := map[string]status{}
	err := list(ctx, c, call{op: "read the statuses of " + commit.Short(), path: []string{"commits", string(commit), "statuses"}}, func(s status) bool {
		if s.ID > latest[s.Context].ID { // the host's orders go by the second, and some by the name of another one
			latest[s.Context] = s
		}
		return true
	})
	var all []forge.Status
	for _, context := range slices.Sorted(maps.Keys(latest)) {
		s := latest[context]
		all = append(all, forge.Status{State: forge.StatusState(s.Status), Context: s.Context, Description: s.Description, URL: s.URL})
	}
	return all, err
}
