// Package githost shows the API of the Git host that a repository lives on as promoter and builder/run want to see it.
package githost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/gitsource/forge"
	"github.com/slipway-cd/slipway/gitsource/forge/gitea"
	"github.com/slipway-cd/slipway/policy"
	"github.com/slipway-cd/slipway/promoter"
)

// Options of a Host.
type Options struct {
	Kind     string // "gitea"
	URL      string // to clone the repository from, "https://HOST/OWNER/NAME.git"; the API is on the same host
	Branch   string // that requests are merged into
	Username string
	Token    policy.Secret // of the API; hosts take the same one as the password for Git
}

// Host is what a Git host knows of one repository beside Git.
type Host struct {
	client *gitea.Client
	into   string
}

// New checks the options. It speaks to nobody.
func New(o Options) (*Host, error) {
	if err := CheckKind(o.Kind); err != nil {
		return nil, err
	}
	base, repo, err := forge.SplitCloneURL(o.URL)
	if err != nil {
		return nil, err
	}
	client, err := gitea.New(gitea.Options{URL: base, Repo: repo, User: o.Username, Token: o.Token})
	if err != nil {
		return nil, err
	}
	return &Host{client: client, into: o.Branch}, nil
}

// CheckKind refuses kinds of hosts that nobody here can speak to.
func CheckKind(kind string) error {
	if kind != string(forge.Gitea) {
		return fmt.Errorf("host %q: this version speaks with gitea alone, Forgejo included (leave it out, and requests are branches)", kind)
	}
	return nil
}

// Of yields the pull requests that there ever were for a branch.
func (h *Host) Of(ctx context.Context, branch string) iter.Seq2[promoter.PullRequest, error] {
	return func(yield func(promoter.PullRequest, error) bool) {
		for p, err := range h.client.Requests(ctx, branch, h.into) {
			if !yield(request(p), reachable(err)) {
				return
			}
		}
	}
}

// Open makes or words the request that merges a branch.
func (h *Host) Open(ctx context.Context, branch, title, body string) (promoter.PullRequest, error) {
	p, err := h.client.OpenRequest(ctx, forge.Request{Head: branch, Base: h.into, Title: title, Body: body})
	return request(p), reachable(err)
}

// Comment says text on a request, once for each key.
func (h *Host) Comment(ctx context.Context, number int64, key, text string) error {
	return reachable(h.client.Comment(ctx, number, key, text))
}

// A host refuses for a moment after a push, while it looks for conflicts.
const (
	looksWithin = 10 * time.Second
	looksEvery  = 250 * time.Millisecond
)

// Merge merges a request by a merge commit, by the rules of the host: forge.ErrBlocked while one is not met.
func (h *Host) Merge(ctx context.Context, number int64, head gitsource.ObjectID) (promoter.PullRequest, error) {
	end := time.Now().Add(looksWithin)
	for {
		p, err := h.client.Merge(ctx, number, head, forge.MergeCommit)
		if !errors.Is(err, forge.ErrBlocked) || p.Mergeable || p.State != forge.Open || p.HeadCommit != head || time.Now().After(end) {
			return request(p), reachable(err)
		}
		select {
		case <-ctx.Done():
			return request(p), ctx.Err()
		case <-time.After(looksEvery):
		}
	}
}

// Status shows at its commit how a Run stands.
func (h *Host) Status(ctx context.Context, r builder.Run) error {
	said := forge.Status{Context: "slipway/" + cmp.Or(r.Pipeline, "pipeline"), Description: r.Reason}
	switch r.State {
	case builder.Succeeded:
		said.State = forge.Success
	case builder.Failed:
		said.State = forge.Failure
	case builder.Cancelled, builder.Skipped:
		said.State = forge.Errored
	default:
		said.State = forge.Pending
	}
	if said.Description == "" {
		said.Description = strings.ToLower(r.State.String()) + ": run " + r.ID
	}
	return reachable(h.client.Status(ctx, r.Revision.ID, said))
}

// RolledBack says at a commit what became of it in an Environment.
func (h *Host) RolledBack(ctx context.Context, s promoter.SourceStatus) error {
	return reachable(h.client.Status(ctx, s.Commit, forge.Status{State: forge.Failure, Context: s.Context, Description: s.Description, URL: s.Target}))
}

func request(p forge.PullRequest) promoter.PullRequest {
	return promoter.PullRequest{
		Number: p.Number, URL: p.URL, Closed: p.State == forge.Closed, Merged: p.State == forge.Merged, Head: p.HeadCommit, Merge: p.MergeCommit,
	}
}

// reachable lets callers see that another try may help.
func reachable(err error) error {
	var failed *forge.Error
	if errors.As(err, &failed) && failed.Temporary() {
		return fmt.Errorf("%w: %w", gitsource.ErrUnreachable, err)
	}
	return err
}
