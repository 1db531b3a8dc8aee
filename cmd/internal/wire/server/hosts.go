package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/slipway-cd/slipway/builder"
	"github.com/slipway-cd/slipway/cmd/internal/wire/githost"
	"github.com/slipway-cd/slipway/console"
	"github.com/slipway-cd/slipway/gitsource"
	"github.com/slipway-cd/slipway/promoter"
)

// host returns the API of the Git host that r lives on; nil where it has none that is spoken to.
func (r Repository) host() (*githost.Host, error) {
	if r.Host == "" {
		return nil, nil
	}
	h, err := githost.New(githost.Options{Kind: r.Host, URL: r.URL, Branch: r.Branch, Username: r.Username, Token: r.Password})
	if err != nil {
		return nil, fmt.Errorf("repository %s: %w", r.URL, err)
	}
	return h, nil
}

// sourceHosts are the hosts of sources, by the URL of the source.
type sourceHosts map[string]*githost.Host

func newSourceHosts(sources []Source) (sourceHosts, error) {
	hosts := sourceHosts{}
	for _, s := range sources {
		r, err := s.repository()
		if err != nil {
			return nil, err
		}
		host, err := r.host()
		if err != nil {
			return nil, err
		}
		if host != nil {
			hosts[s.URL] = host
		}
	}
	return hosts, nil
}

// Status shows a Run at its commit, if anybody shows such things there.
func (s sourceHosts) Status(ctx context.Context, r builder.Run) error {
	if host, found := s[r.Repo.URL]; found {
		return host.Status(ctx, r)
	}
	return nil
}

// rolledBack shows at source commits that an Environment threw them out.
func (s sourceHosts) rolledBack(ctx context.Context, announced []promoter.Announcement) error {
	var failed []error
	for _, a := range announced {
		for _, status := range a.Statuses {
			// The URL comes out of a commit message: only hosts that are configured are spoken to.
			if host, found := s[status.URL]; found {
				failed = append(failed, host.RolledBack(ctx, status))
			}
		}
	}
	return errors.Join(failed...)
}

// A herald keeps what people see on the Git host of an environment repo in step with the repo: it describes requests that
// somebody pushed, and announces reverts. All of it may be done again, so it remembers nothing that a restart could lose.
type herald struct {
	url, branch string
	promoter    *promoter.Promoter
	refs        console.Refs
	sources     sourceHosts
	hub         *console.Hub
	log         logr.Logger

	tip       gitsource.ObjectID // seen last
	announced gitsource.ObjectID // up to here all reverts are
	requests  map[string]*asked  // by ref
}

// asked is a branch that asks for a promotion.
type asked struct {
	id        gitsource.ObjectID
	open      bool // make a pull request if there is none
	described bool
	last      time.Time // when it was looked at
	next      time.Time // when to look again
}

const (
	// grace is how long a branch may be without a pull request, because who pushed it may open one in their own name, and how
	// soon at the earliest a request is looked at again: when the followed branch moves it may have been merged.
	grace = 10 * time.Second
	// heraldEvery is how often it looks although nobody said that anything moved, and tries again after a failure.
	heraldEvery = time.Minute
)

// Run works until ctx ends.
func (h *herald) Run(ctx context.Context) {
	for ctx.Err() == nil {
		nudges, end, ok := h.hub.Subscribe()
		if !ok {
			end = func() {} // no room: the clock alone
		}
		h.serve(ctx, nudges)
		end()
	}
}

// serve returns when nudges is closed, because some may be missing then.
func (h *herald) serve(ctx context.Context, nudges <-chan console.Nudge) {
	for {
		next := h.look(ctx, time.Now())
		timer := time.NewTimer(time.Until(next))
		for waits := true; waits; {
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case n, on := <-nudges:
				if !on {
					timer.Stop()
					return
				}
				waits = n.URL != h.url
			case <-timer.C:
				waits = false
			}
		}
		timer.Stop()
	}
}

// look does what is due and returns when to look again.
func (h *herald) look(ctx context.Context, now time.Time) time.Time {
	next := now.Add(heraldEvery)
	refs, err := h.refs.Refs(ctx)
	if err != nil {
		h.complain(ctx, err, "the refs cannot be read; trying again")
		return next
	}
	tip := refs["refs/heads/"+h.branch]
	moved := tip != h.tip
	h.tip = tip
	if tip != h.announced && h.announce(ctx) {
		h.announced = tip
	}
	maps.DeleteFunc(h.requests, func(ref string, _ *asked) bool { return refs[ref] == "" })
	for ref, id := range refs {
		env, app, is := requestOf(ref)
		if !is {
			continue
		}
		if r := h.requests[ref]; r == nil || r.id != id {
			h.requests[ref] = &asked{id: id, next: now}
		}
		r := h.requests[ref]
		if again := r.last.Add(grace); moved && again.Before(r.next) {
			r.next = again
		}
		if !r.next.After(now) {
			h.describe(ctx, now, env, app, r)
		}
		if r.next.Before(next) {
			next = r.next
		}
	}
	return next
}

// requestOf takes the branch of a promotion request apart.
func requestOf(ref string) (env, app string, is bool) {
	rest, is := strings.CutPrefix(ref, "refs/heads/")
	if !is {
		return "", "", false
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 || rest != promoter.RequestBranch(parts[1], parts[2]) {
		return "", "", false
	}
	return parts[1], parts[2], true
}

func (h *herald) describe(ctx context.Context, now time.Time, env, app string, r *asked) {
	request, found, err := h.promoter.Describe(ctx, env, app, r.open)
	first := !r.described
	r.last, r.next, r.described = now, now.Add(heraldEvery), found
	switch {
	case err != nil:
		h.complain(ctx, err, "a request is not described; trying again")
	case found && first:
		h.log.Info("a request is described", "app", app, "environment", env, "url", request.URL)
	case !found && !r.open:
		r.open, r.next = true, now.Add(grace)
	}
}

// announce reports whether all reverts are announced.
func (h *herald) announce(ctx context.Context) bool {
	announced, err := h.promoter.AnnounceReverts(ctx, h.announced)
	for _, a := range announced {
		h.log.Info("a revert is announced", "commit", a.Revert, "requests", len(a.Requests), "sources", len(a.Statuses))
	}
	if err == nil {
		err = h.sources.rolledBack(ctx, announced)
	}
	h.complain(ctx, err, "a revert is not announced; trying again")
	return err == nil
}

func (h *herald) complain(ctx context.Context, err error, what string) {
	if err != nil && ctx.Err() == nil {
		h.log.Error(err, what, "url", h.url)
	}
}
